package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/png"
	"strings"
	"testing"
)

func TestParseHash(t *testing.T) {
	ada := emailHash("ada@example.com")
	digits := hex.EncodeToString(ada[:])
	for _, test := range []struct {
		name string
		want bool
	}{
		{digits, true},
		{strings.ToUpper(digits), true},
		{digits + ".jpg", true},
		{digits + ".JPEG", true},
		{digits + ".webp", true},
		{"ada@example.com", true},
		{"ADA@Example.com.png", true},
		{digits + ".svg", false},
		{digits + ".jpg.jpg", false},
		{digits[:63], false},
		{digits[:62], false},
		{digits + "00", false},
		{"9e26471d35a78862c17e467d87cddedf", false}, // MD5
		{"Ada <ada@example.com>", false},
		{"", false},
	} {
		sum, ok := parseHash(test.name)
		if ok != test.want || ok != (sum == ada) {
			t.Errorf("hash of %q: %x %t, want %x %t", test.name, sum, ok, ada, test.want)
		}
	}
}

// TestIdenticon requires small valid pictures that differ.
func TestIdenticon(t *testing.T) {
	t.Parallel()
	pictures := map[string]bool{}
	for i := range 500 {
		sum := sha256.Sum256(fmt.Append(nil, i))
		data := identicon(sum)
		img, err := png.Decode(bytes.NewReader(data))
		if err != nil || img.Bounds() != image.Rect(0, 0, 256, 256) || len(data) >= 1000 {
			t.Fatalf("identicon of %x: %d bytes, %v, want a PNG of 256 x 256 in less than 1000", sum, len(data), err)
		}
		if img.At(100, 100) != img.At(155, 100) {
			t.Errorf("identicon of %x: left and right differ", sum)
		}
		pictures[string(data)] = true
	}
	if len(pictures) != 500 {
		t.Errorf("%d different pictures of 500 hashes", len(pictures))
	}
	if sum := emailHash("ada@example.com"); !bytes.Equal(identicon(sum), identicon(sum)) {
		t.Error("two pictures of one hash differ")
	}
}

func BenchmarkIdenticon(b *testing.B) {
	b.ReportAllocs()
	sum := emailHash("ada@example.com")
	for b.Loop() {
		identicon(sum)
	}
}
