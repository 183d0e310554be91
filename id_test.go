package main

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
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
	} {
		if got := userID(test.a) == userID(test.b); got != test.same {
			t.Errorf("%q and %q: same user %v, want %v", test.a, test.b, got, test.same)
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
		"ada@example.com", "Ada <ada@example.com>", `"a b"@example.com`, "用户@例子.广告", "a@[::1]", "@", "a@b\x00", "\u212a@k", "a@\u0130",
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
	} {
		t.Run(test.in, func(t *testing.T) {
			got, fault := cleanField(test.in, cleanEmail)
			if (fault == nil) != test.ok || test.ok && got != strings.TrimSpace(test.in) {
				t.Errorf("got %q, %v", got, fault)
			}
		})
	}
}
