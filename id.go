package main

import (
	"crypto/sha256"
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

const maxEmailLength = 254 // bytes; RFC 5321, section 4.5.3.1.3, less the angle brackets

// domains is idna.Lookup with the limits of the DNS.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.VerifyDNSLength(true))

// userID returns the id of the user with a clean email.
func userID(email string) string { return idOf(emailHash(email)) }

// emailHash returns the SHA-256 of a clean email's canonical form.
func emailHash(email string) [sha256.Size]byte { return sha256.Sum256([]byte(canonicalEmail(email))) }

// idOf makes an id of the hash of an email: a UUID version 8 (RFC 9562, section 5.8).
func idOf(sum [sha256.Size]byte) string {
	id := [16]byte(sum[:16])
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// canonicalEmail is the form in which emails are compared: see Identity in docs/architecture.md.
func canonicalEmail(email string) string {
	local, domain, _ := strings.Cut(email, "@")
	ascii, _ := domains.ToASCII(domain) // of a clean email: cannot fail; 0.6 µs
	return foldCase(local) + "@" + ascii
}

// foldCase returns s in NFC and without case, as canonical caseless matching does (Unicode, section
// 3.13). The lower case of the upper case is the same for σ and ς. No character outside ASCII
// becomes one inside: the long s (U+017F) would become s and name another mailbox.
func foldCase(s string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		folded := unicode.ToLower(unicode.ToUpper(r))
		if r > unicode.MaxASCII && folded <= unicode.MaxASCII {
			return r
		}
		return folded
	}, norm.NFD.String(s)))
}

// unprintable are control, format, private-use and surrogate characters, and those that are never
// assigned or never shown. unicode.C would include what newer versions of Unicode add.
var unprintable = []*unicode.RangeTable{
	unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs,
	unicode.Noncharacter_Code_Point, unicode.Other_Default_Ignorable_Code_Point,
}

// joiners removes the two format characters that a domain may contain (RFC 5892, appendix A).
var joiners = strings.NewReplacer("\u200c", "", "\u200d", "")

// cleanEmail accepts a bare address: local part, @, domain (RFC 5322), with the
// international characters of RFC 6531; no display name, comment or quotes.
func cleanEmail(email string) (string, error) {
	local, domain, _ := strings.Cut(email, "@")
	address, err := mail.ParseAddress(email)
	invisible := func(r rune) bool { return unicode.IsSpace(r) || unicode.In(r, unprintable...) }
	if err != nil || address.Address != email || len(email) > maxEmailLength || !validDomain(domain) ||
		strings.ContainsFunc(local+joiners.Replace(domain), invisible) {
		hint := ""
		if strings.Contains(email, " ") {
			hint = "; it has a space: in a form, + is sent as %2B"
		}
		return "", fmt.Errorf("must be a bare email address such as ada@example.com, of at most %d bytes%s",
			maxEmailLength, hint)
	}
	return email, nil
}

// validDomain accepts host names (RFC 1123, section 2.1), with or without dots, and
// their international forms of letters, digits and marks.
func validDomain(domain string) bool {
	ascii, err := domains.ToASCII(domain)
	if err != nil || strings.HasSuffix(ascii, ".") {
		return false
	}
	shown, err := domains.ToUnicode(ascii)
	symbol := func(r rune) bool { return r != '.' && r != '-' && !unicode.In(r, unicode.L, unicode.N, unicode.M) }
	return err == nil && !strings.ContainsFunc(joiners.Replace(shown), symbol)
}

var userIDs = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// parseID returns a possible user id in lower case (RFC 9562, section 4).
func parseID(s string) (string, error) {
	id := strings.ToLower(s)
	if !userIDs.MatchString(id) {
		return "", fmt.Errorf("must be the id of a user, not %.40q", s)
	}
	return id, nil
}
