package main

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

func TestUserID(t *testing.T) {
	// Fixed for ever: stored users are found by it.
	const ada = "b5fc85e5-5755-89e0-9030-a10ab4429b6b"
	if got := userID("ada@example.com"); got != ada {
		t.Errorf("id of ada@example.com: %s, want %s", got, ada)
	}
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"ada@example.com", "ADA@EXAMPLE.COM", true},
		{"ÄDA@example.com", "äda@example.com", true},
		{"jos\u00e9@example.com", "jose\u0301@example.com", true},
		{"a@münchen.example", "A@xn--mnchen-3ya.example", true},
		{"a@MÜNCHEN。example", "a@mu\u0308nchen.example", true},
		{"ada@example.com", "ada@example.org", false},
		{"ada@example.com", "a.da@example.com", false},
		// Confusables are different users.
		{"ada@example.com", "аda@example.com", false},           // Cyrillic а
		{"kelvin@example.com", "\u212aelvin@example.com", true}, // Kelvin sign, which NFC makes a K
		{"ink@example.com", "\u0130nk@example.com", false},      // İ
		{"s@example.com", "\u017f@example.com", false},          // ſ
		{"i@example.com", "\u0131@example.com", false},          // ı
		// Letter case and NFC in either order.
		{"οδυσσευς@example.com", "ΟΔΥΣΣΕΥΣ@example.com", true},
		{"\u01f0@example.com", "J\u030c@example.com", true}, // only the lower case is composed
		{"\u1e96@example.com", "H\u0331@example.com", true},
		{"\u1fb3@example.com", "\u1fbc@example.com", true}, // iota below
		{"\u1fb3@example.com", "ΑΙ@example.com", true},
		{"stra\u00dfe@example.com", "STRA\u1e9eE@example.com", true},
		{"stra\u00dfe@example.com", "strasse@example.com", false},
		{"\u01c5@example.com", "\u01c6@example.com", true}, // title case
		{"ꭰ@example.com", "Ꭰ@example.com", true},           // Cherokee
		{"a@نامه\u200cای.example", "a@نامهای.example", false},
		{"a@οδυσσευς.example", "a@ΟΔΥΣΣΕΥΣ.example", false}, // two domains in IDNA
	} {
		if got := userID(test.a) == userID(test.b); got != test.same {
			t.Errorf("%q and %q: same user %v, want %v", test.a, test.b, got, test.same)
		}
	}
}

// TestFoldCase compares every character with full case folding.
func TestFoldCase(t *testing.T) {
	t.Parallel()
	full := func(s string) string { return norm.NFC.String(cases.Fold().String(norm.NFD.String(s))) }
	for r := range unicode.MaxRune + 1 {
		if !utf8.ValidRune(r) {
			continue
		}
		s := string(r)
		folded := foldCase(s)
		if again := foldCase(folded); again != folded {
			t.Errorf("%U: %+q, folded again %+q", r, folded, again)
		}
		if r > unicode.MaxASCII && norm.NFD.String(s)[0] >= utf8.RuneSelf && folded[0] < utf8.RuneSelf {
			t.Errorf("%U is ASCII if folded: %+q", r, folded)
		}
		// Ligatures and ŉ stay, and so do characters that full folding would make ASCII.
		if want := full(s); foldCase(want) != folded && utf8.RuneCountInString(want) == 1 &&
			norm.NFD.String(want)[0] >= utf8.RuneSelf {
			t.Errorf("%U: %+q, want as for %+q", r, folded, want)
		}
		for _, other := range []string{strings.ToUpper(s), strings.ToLower(s), norm.NFD.String(strings.ToUpper(s)),
			norm.NFC.String(strings.ToLower(s))} {
			if got := foldCase(other); got != folded && norm.NFD.String(other)[0] >= utf8.RuneSelf {
				t.Errorf("%U: %+q, but %+q of %+q", r, folded, got, other)
			}
		}
	}
}

func TestParseID(t *testing.T) {
	id := userID("ada@example.com")
	if same, err := parseID(id); err != nil || same != id {
		t.Errorf("%s is read as %s", id, same)
	}
	if upper, err := parseID(strings.ToUpper(id)); err != nil || upper != id {
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
		if _, err := parseID(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func FuzzEmail(f *testing.F) {
	for _, seed := range []string{
		"ada@example.com", "Ada <ada@example.com>", `"a b"@example.com`,
		"用户@例子.广告", "a@[::1]", "@", "a@b\x00",
		"\u212a@k",
		"a@\u0130",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		email, fault := cleanField(in, cleanEmail)
		if fault != nil {
			return
		}
		if len(email) > maxEmailLength || !utf8.ValidString(email) || strings.Count(email, "@") != 1 ||
			strings.ContainsAny(email, " \t\r\n<>()[],;:\"\\") || strings.ContainsFunc(email, unicode.IsControl) {
			t.Errorf("%q passes as an email", email)
		}
		if again, fault := cleanEmail(email); fault != nil || again != email {
			t.Errorf("%q is accepted as %q, which is %v", in, email, fault)
		}
		id := userID(email)
		if _, err := parseID(id); err != nil {
			t.Errorf("%q makes %q, which is no id", email, id)
		}
		if userID(canonicalEmail(email)) != id {
			t.Errorf("%q and %q are two users", email, canonicalEmail(email))
		}
	})
}

func TestCleanEmail(t *testing.T) {
	long := strings.Repeat("a", 60) + "@" + strings.Repeat(strings.Repeat("b", 60)+".", 3) + "example.com"
	for _, test := range []struct {
		in string
		ok bool
	}{
		{"ada@example.com", true},
		{"Ada.Lovelace+tag@Example.COM", true},
		{"ada@localhost", true},
		{"o'brien@example.ie", true},
		{"a@b.c", true},
		{"1@2.3", true},
		{"用户@例子.广告", true},
		{"ada@xn--bcher-kva.example", true},
		{"!#$%&'*+-/=?^_`{|}~@example.com", true},
		{strings.Repeat("a", 242) + "@example.com", true}, // 254 bytes
		{strings.Repeat("a", 243) + "@example.com", false},
		{long, len(long) <= 254},
		{"", false},
		{"ada", false},
		{"@example.com", false},
		{"ada@", false},
		{"ada@example.com,eve@example.com", false},
		{"ada@example.com eve@example.com", false},
		{"ada@@example.com", false},
		{"ada@exa mple.com", false},
		{"a da@example.com", false},
		{"Ada <ada@example.com>", false},
		{"<ada@example.com>", false},
		{`"ada lovelace"@example.com`, false},
		{`"ada"@example.com`, false},
		{"ada(comment)@example.com", false},
		{"ada@[127.0.0.1]", false},
		{"ada@-example.com", false},
		{"ada@example-.com", false},
		{"ada@example..com", false},
		{"ada@.example.com", false},
		{"ada@example.com.", false},
		{".ada@example.com", false},
		{"ada.@example.com", false},
		{"a..da@example.com", false},
		{"ada@exam_ple.com", false},
		{"ada@" + strings.Repeat("b", 64) + ".com", false},
		{"ada@example.com\nBcc: eve@example.com", false},
		{"ada@example.com\r", true}, // trimmed
		{"ada\x00@example.com", false},
		{"a\u200bda@example.com", false}, // zero width space
		{"ada@exam\u00adple.com", false}, // soft hyphen
		{"\u202eada@example.com", false}, // right-to-left override
		{"ada\ufffd@example.com", false},
		{"ada@example.com/../x", false},
		{"ada@±", false},
		{"ada@ex♥mple.com", false},
		{"\U0001fae9@example.com", true}, // newer than Go's tables
		{"\U00010d50@example.com", true}, // Garay
		{"\ue000@example.com", false},    // private use
		{"\ufdd0@example.com", false},    // never a character
		{"\U000e0001@example.com", false},
		{"a\u2065@example.com", false},      // unassigned, but never shown
		{"ada@نامه\u200cای.example", true},  // zero width non-joiner, which Persian needs
		{"ada@क्\u200dष.example", true},     // zero width joiner, which Hindi needs
		{"ada@exam\u200cple.com", false},    // which Latin does not need
		{"نامه\u200cای@example.com", false}, // not in a local part
		{"ada news@example.com", false},
	} {
		t.Run(test.in, func(t *testing.T) {
			got, fault := cleanField(test.in, cleanEmail)
			if (fault == nil) != test.ok || test.ok && got != strings.TrimSpace(test.in) {
				t.Errorf("email %q: %q, error %v, want accepted: %t", test.in, got, fault, test.ok)
			}
		})
	}
}
