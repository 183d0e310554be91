package main

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

func TestUserID(t *testing.T) {
	// Fixed for ever: stored users are found by it.
	const ada = "b5fc85e5-5755-89e0-9030-a10ab4429b6b"
	if got := userID("ada@example.com"); got != ada {
		t.Errorf("got %s, want %s", got, ada)
	}
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"ada@example.com", "ADA@EXAMPLE.COM", true},
		{"ÄDA@example.com", "äda@example.com", true},
		{"ada@example.com", "ada@example.org", false},
		{"ada@example.com", "a.da@example.com", false},
		// Confusables are different users.
		{"ada@example.com", "аda@example.com", false},            // Cyrillic а
		{"kelvin@example.com", "\u212aelvin@example.com", false}, // Kelvin sign
		{"ink@example.com", "\u0130nk@example.com", false},       // İ
		{"s@example.com", "\u017f@example.com", false},           // ſ
	} {
		if got := userID(test.a) == userID(test.b); got != test.same {
			t.Errorf("%q and %q: same user %v, want %v", test.a, test.b, got, test.same)
		}
	}
}

func TestParseID(t *testing.T) {
	id := userID("ada@example.com")
	raw, ok := parseID(id)
	if !ok || formatID(raw) != id {
		t.Errorf("%s does not survive: %s", id, formatID(raw))
	}
	if upper, ok := parseID(strings.ToUpper(id)); !ok || upper != raw {
		t.Errorf("%s is not read in capitals", id)
	}
	for _, bad := range []string{
		"", "x", "..", "../../etc/passwd", id[:35], id + "0", " " + id, "{" + id + "}", "urn:uuid:" + id,
		strings.ReplaceAll(id, "-", ""), strings.Replace(id, "-", "0", 1), strings.Repeat("-", 36),
		id[:14] + "4" + id[15:],         // version 4
		id[:19] + "c" + id[20:],         // another variant
		id[:35] + "g", id[:35] + "\x00", // no digit
		"00000000-0000-0000-0000-000000000000", // nil UUID
		"ffffffff-ffff-ffff-ffff-ffffffffffff", // max UUID
	} {
		if _, ok := parseID(bad); ok {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestCursor(t *testing.T) {
	id := userID("ada@example.com")
	cursor := formatCursor(id)
	if got, ok := parseCursor(cursor); !ok || got != id || len(cursor) != 22 {
		t.Errorf("%s becomes %s becomes %s", id, cursor, got)
	}
	raw, _ := parseID(id)
	for _, bad := range []string{
		"", "x", id, cursor[:21], cursor + "A", cursor + "==", "+" + cursor[1:], cursor[:21] + "\n",
		base64.RawURLEncoding.EncodeToString(make([]byte, 16)), // no id
		base64.RawURLEncoding.EncodeToString(raw[:15]),
		base64.RawURLEncoding.EncodeToString(append(raw[:], 0)),
	} {
		if got, ok := parseCursor(bad); ok {
			t.Errorf("%q passes as %s", bad, got)
		}
	}
	// The last character carries two bits only: the rest must be zero, so that a
	// position has one cursor.
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		other := cursor[:21] + string(c)
		if got, ok := parseCursor(other); ok && got == id && other != cursor {
			t.Errorf("%s and %s are the same position", cursor, other)
		}
	}
}

func TestRequestID(t *testing.T) {
	for _, good := range []string{"1", "a-b_c.D", strings.Repeat("x", 64)} {
		if got := requestID(&http.Request{Header: http.Header{"X-Request-Id": {good}}}); got != good {
			t.Errorf("%q becomes %q", good, got)
		}
	}
	seen := map[string]bool{}
	for _, bad := range []string{"", strings.Repeat("x", 65), "a b", "a\"b", "a\nb", "ä", "a;b", "<a>", "ada@example.com"} {
		got := requestID(&http.Request{Header: http.Header{"X-Request-Id": {bad}}})
		if got == bad || len(got) < 20 || seen[got] {
			t.Errorf("%q becomes %q", bad, got)
		}
		seen[got] = true
	}
}

func TestTraceID(t *testing.T) {
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, test := range []struct{ in, want string }{
		{"00-" + trace + "-" + span + "-01", trace},
		{"00-" + trace + "-" + span + "-00", trace},
		{"cc-" + trace + "-" + span + "-01", trace},
		{"cc-" + trace + "-" + span + "-01-what the future brings", trace},
		{"cc-" + trace + "-" + span + "-01.what", ""},
		{"00-" + trace + "-" + span + "-01-more", ""},
		{"ff-" + trace + "-" + span + "-01", ""},
		{"00-" + strings.ToUpper(trace) + "-" + span + "-01", ""},
		{"00-" + strings.Repeat("0", 32) + "-" + span + "-01", ""},
		{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01", ""},
		{"00-" + trace[:31] + "g-" + span + "-01", ""},
		{"00-" + trace + "-" + span, ""},
		{"00-" + trace + span + "--01", ""},
		{" 00-" + trace + "-" + span + "-01", ""},
		{"", ""},
		{strings.Repeat("-", 55), ""},
		{strings.Repeat("0", 1<<16), ""},
	} {
		if got := traceID(test.in); got != test.want {
			t.Errorf("%.80q: got %q, want %q", test.in, got, test.want)
		}
	}
}
