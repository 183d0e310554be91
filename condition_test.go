package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadCondition(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat(`"a",`, maxTags), ",")
	list := func(tag ...string) *tags { return &tags{list: tag} }
	for _, test := range []struct {
		lines            []string
		match, noneMatch *tags // both nil: 400
	}{
		{[]string{`"a"`}, list("a"), list("a")},
		{[]string{`"a","b"`}, list("a", "b"), list("a", "b")},
		{[]string{` "a" ,"b"`, `"c"`}, list("a", "b", "c"), list("a", "b", "c")},
		{[]string{`, "a",, "b",`}, list("a", "b"), list("a", "b")},
		{[]string{`"a,b", "c"`}, list("a,b", "c"), list("a,b", "c")},
		{[]string{`W/"a", "b"`}, list("b"), list("a", "b")},
		{[]string{`W/"a"`}, list(), list("a")},
		{[]string{``}, list(), list()},
		{[]string{`""`}, list(""), list("")},
		{[]string{`"*"`}, list("*"), list("*")},
		{[]string{` * `}, &tags{any: true}, &tags{any: true}},
		{[]string{many}, list(strings.Split(strings.ReplaceAll(many, `"`, ""), ",")...),
			list(strings.Split(strings.ReplaceAll(many, `"`, ""), ",")...)},
		{[]string{many, `"a"`}, nil, nil},
		{[]string{`a`}, nil, nil},
		{[]string{`'a'`}, nil, nil},
		{[]string{`"a`}, nil, nil},
		{[]string{`a"`}, nil, nil},
		{[]string{`"a" "b"`}, nil, nil},
		{[]string{`"a"b`}, nil, nil},
		{[]string{`w/"a"`}, nil, nil},
		{[]string{`"a"`, `*`}, nil, nil},
		{[]string{`*, "a"`}, nil, nil},
	} {
		for field, want := range map[string]*tags{"If-Match": test.match, "If-None-Match": test.noneMatch} {
			c, err := readCondition(&http.Request{Header: http.Header{field: test.lines}})
			if want == nil {
				if err == nil || problemOf(err).Status != http.StatusBadRequest ||
					!strings.Contains(err.Error(), field) {
					t.Errorf("%s: %q: error %v, want 400 that names the field", field, test.lines, err)
				}
				continue
			}
			wanted := Condition{Match: want}
			if field == "If-None-Match" {
				wanted = Condition{NoneMatch: want}
			}
			if diff := cmp.Diff(wanted, c, cmp.AllowUnexported(tags{})); diff != "" || err != nil {
				t.Errorf("%s: %q: error %v, (-want +got)\n%s", field, test.lines, err, diff)
			}
		}
	}
	if c, err := readCondition(&http.Request{}); c != (Condition{}) || err != nil {
		t.Errorf("without the fields: %+v, %v, want no condition", c, err)
	}
}

// ofAvatar returns the same condition on the user's image.
func (cond Condition) ofAvatar() Condition {
	cond.OfAvatar = true
	return cond
}

func TestConditionHolds(t *testing.T) {
	user := User{ETag: "u"}
	withImage := User{ETag: "u", Avatar: Avatar{Key: "k"}}
	untagged := User{}
	anything, u, k, none := &tags{any: true}, &tags{list: []string{"x", "u"}}, &tags{list: []string{"x", "k"}}, &tags{}
	for _, test := range []struct {
		name string
		c    Condition
		user User
		want bool
	}{
		{"none", Condition{}, untagged, true},
		{"none on an image", Condition{}.ofAvatar(), user, true},
		{"If-Match *", Condition{Match: anything}, user, true},
		{"If-Match * on a missing image", Condition{Match: anything}.ofAvatar(), user, false},
		{"If-Match * on an image", Condition{Match: anything}.ofAvatar(), withImage, true},
		{"If-Match", Condition{Match: u}, user, true},
		{"If-Match of another", Condition{Match: k}, user, false},
		{"If-Match of an image", Condition{Match: k}.ofAvatar(), withImage, true},
		{"If-Match of another image", Condition{Match: u}.ofAvatar(), withImage, false},
		{"If-Match without tags", Condition{Match: none}, user, false},
		{"If-None-Match *", Condition{NoneMatch: anything}, user, false},
		{"If-None-Match * on a missing image", Condition{NoneMatch: anything}.ofAvatar(), user, true},
		{"If-None-Match * on an image", Condition{NoneMatch: anything}.ofAvatar(), withImage, false},
		{"If-None-Match", Condition{NoneMatch: u}, user, false},
		{"If-None-Match of another", Condition{NoneMatch: k}, user, true},
		{"If-None-Match of an image", Condition{NoneMatch: k}.ofAvatar(), withImage, false},
		{"If-None-Match without tags", Condition{NoneMatch: none}, user, true},
		{"both", Condition{Match: u, NoneMatch: k}, user, true},
		{"both, one does not hold", Condition{Match: u, NoneMatch: anything}, user, false},
	} {
		if got := test.c.holds(test.user); got != test.want {
			t.Errorf("%s: holds %t, want %t", test.name, got, test.want)
		}
	}
}

func TestReadRange(t *testing.T) {
	read := func(method string, h http.Header) string {
		first, end, partial := readRange(&http.Request{Method: method, Header: h}, `"tag"`, 10)
		if !partial {
			return ""
		}
		return fmt.Sprintf("%d-%d", first, end)
	}
	for _, test := range []struct{ method, header, want string }{
		{"GET", "", ""},
		{"GET", "bytes=0-0", "0-1"},
		{"GET", "bytes=3-5", "3-6"},
		{"GET", "BYTES=3-5", "3-6"},
		{"GET", "bytes=3-", "3-10"},
		{"GET", "bytes=3-99999999999999999999", "3-10"},
		{"GET", "bytes=99999999999999999999-", "10-10"},
		{"GET", "bytes=-4", "6-10"},
		{"GET", "bytes=-10", "0-10"},
		{"GET", "bytes=-99999999999999999999", "0-10"},
		{"GET", "bytes=-0", "10-10"}, // no byte: 416
		{"GET", "bytes=10-", "10-10"},
		{"HEAD", "bytes=0-0", ""},
		{"GET", "items=0-5", ""},
		{"GET", "bytes", ""},
		{"GET", "bytes=", ""},
		{"GET", "bytes=-", ""},
		{"GET", "bytes=5-2", ""},
		{"GET", "bytes=1-2,4-5", ""},
		{"GET", "bytes=+1-2", ""},
		{"GET", "bytes=1-2-3", ""},
		{"GET", "bytes=--5", ""},
		{"GET", "bytes 1-2", ""},
	} {
		if got := read(test.method, http.Header{"Range": {test.header}}); got != test.want {
			t.Errorf("%s, Range: %s of 10 bytes: %q, want %q", test.method, test.header, got, test.want)
		}
	}
	for name, h := range map[string]http.Header{
		"two fields":     {"Range": {"bytes=1-2", "bytes=3-4"}},
		"for another":    {"Range": {"bytes=1-2"}, "If-Range": {`"another"`}},
		"for a weak tag": {"Range": {"bytes=1-2"}, "If-Range": {`W/"tag"`}},
	} {
		if got := read("GET", h); got != "" {
			t.Errorf("%s: %q, want none", name, got)
		}
	}
	if got := read("GET", http.Header{"Range": {"bytes=1-2"}, "If-Range": {`"tag"`}}); got != "1-3" {
		t.Errorf("for this tag: %q, want 1-3", got)
	}
}
