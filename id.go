package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

const maxEmailLength = 254 // bytes; RFC 5321, section 4.5.3.1.3, less the angle brackets

// userID derives a user's id from a clean email: a UUID version 8 (RFC 9562, section
// 5.8) of the SHA-256 of the email's canonical form. Equal emails have equal ids, so
// one conditional write to one item keeps emails unique.
func userID(email string) string {
	sum := sha256.Sum256([]byte(canonicalEmail(email)))
	id := [16]byte(sum[:16])
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562
	return formatID(id)
}

// canonicalEmail is the form in which emails are compared: NFC, lower case, the
// domain in the ASCII form of IDNA (UTS 46).
func canonicalEmail(email string) string {
	local, domain := splitEmail(email)
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		ascii = strings.ToLower(domain) // not clean: no user has it
	}
	return foldCase(norm.NFC.String(local)) + "@" + ascii
}

func splitEmail(email string) (local, domain string) {
	at := strings.LastIndexByte(email, '@')
	return email[:max(at, 0)], email[at+1:]
}

// foldCase returns s in lower case. No character outside ASCII becomes one inside:
// the Kelvin sign (U+212A) would become k and name another mailbox.
func foldCase(s string) string {
	return strings.Map(func(r rune) rune {
		lower := unicode.ToLower(r)
		if r > unicode.MaxASCII && lower <= unicode.MaxASCII {
			return r
		}
		return lower
	}, s)
}

// cleanEmail accepts a bare address: local part, @, domain (RFC 5322), with the
// international characters of RFC 6531; no display name, comment or quotes.
func cleanEmail(email string) (string, *fieldError) {
	email = strings.TrimSpace(email)
	if email == "" {
		return "", &fieldError{"email", "must be an email address; it is missing or blank"}
	}
	if len(email) > maxEmailLength {
		return "", &fieldError{"email", fmt.Sprintf("may have at most %d bytes; it has %d", maxEmailLength, len(email))}
	}
	_, domain := splitEmail(email)
	address, err := mail.ParseAddress(email)
	if err != nil || address.Name != "" || address.Address != email || !validDomain(domain) ||
		strings.ContainsFunc(email, notInEmail) {
		return "", &fieldError{"email", "must be a bare email address such as ada@example.com"}
	}
	return email, nil
}

// notInEmail finds invisible characters and broken escapes: two addresses that
// differ in them look the same.
func notInEmail(r rune) bool {
	return r == unicode.ReplacementChar || unicode.IsSpace(r) || unicode.In(r, unicode.C)
}

// validDomain accepts host names (RFC 1123, section 2.1), with or without dots, and
// their international forms of letters, digits and marks.
func validDomain(domain string) bool {
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || len(ascii) > 253 {
		return false
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	shown, err := idna.Lookup.ToUnicode(ascii)
	return err == nil && !strings.ContainsFunc(shown, func(r rune) bool {
		return r != '.' && r != '-' && !unicode.In(r, unicode.L, unicode.N, unicode.M)
	})
}

func formatID(id [16]byte) string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

var userIDs = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// parseID returns a user id in lower case (RFC 9562, section 4). It reports whether
// userID can have made it.
func parseID(s string) (id string, ok bool) {
	id = strings.ToLower(s)
	return id, userIDs.MatchString(id)
}

// formatCursor returns the opaque cursor of the page behind the user id.
func formatCursor(id string) string {
	raw, _ := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	return base64.RawURLEncoding.EncodeToString(raw)
}

// parseCursor returns the user id of a cursor.
func parseCursor(cursor string) (id string, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) != 16 {
		return "", false
	}
	return parseID(formatID([16]byte(raw)))
}
