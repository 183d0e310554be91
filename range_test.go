package main

import "testing"

func TestParseRange(t *testing.T) {
	for _, test := range []struct {
		field         string
		start, length int64
		ok            bool
	}{
		{"", 0, 100, true},
		{"bytes=0-0", 0, 1, true},
		{"bytes=0-99", 0, 100, true},
		{"bytes=10-", 10, 90, true},
		{"bytes=10-1000", 10, 90, true},
		{"bytes=99-99", 99, 1, true},
		{"bytes=-1", 99, 1, true},
		{"bytes=-1000", 0, 100, true},
		{"bytes=100-", 0, 0, false},
		{"bytes=-0", 100, 0, false},
		{"bytes=99999999999999999999-", 0, 0, false},
		{"bytes=0-99999999999999999999", 0, 100, true},
		// What is not understood is the whole image.
		{"bytes=5-4", 0, 100, true},
		{"bytes=-", 0, 100, true},
		{"bytes=+1-2", 0, 100, true},
		{"bytes=1--2", 0, 100, true},
		{"bytes=a-b", 0, 100, true},
		{"bytes=1-2,4-5", 0, 100, true},
		{"lines=1-2", 0, 100, true},
	} {
		start, length, ok := parseRange(test.field, 100)
		if start != test.start && ok || length != test.length || ok != test.ok {
			t.Errorf("parseRange(%q) = %d, %d, %v, want %d, %d, %v", test.field, start, length, ok, test.start, test.length, test.ok)
		}
	}
}
