package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"unicode"
)

// userID makes a user's id from the email: a UUID version 8 (RFC 9562, section
// 5.8) of the first bytes of the SHA-256 of the email in lower case. The same
// email so gives the same id everywhere, and one conditional write to one item
// keeps emails unique without an index or a transaction.
func userID(email string) string {
	sum := sha256.Sum256([]byte(foldEmail(email)))
	id := [16]byte(sum[:16])
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562
	return formatID(id)
}

// foldEmail puts an email into lower case for comparison. No character outside
// ASCII becomes one inside it: the Kelvin sign (U+212A) would otherwise turn
// into k, and another person's email into this one.
func foldEmail(email string) string {
	return strings.Map(func(r rune) rune {
		lower := unicode.ToLower(r)
		if r > unicode.MaxASCII && lower <= unicode.MaxASCII {
			return r
		}
		return lower
	}, email)
}

func formatID(id [16]byte) string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// parseID reads a user id as text, in either case (RFC 9562, section 4), and
// reports whether it is one that userID can have made.
func parseID(s string) (id [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return id, false
	}
	return id, id[6]>>4 == 8 && id[8]>>6 == 2
}

// formatCursor makes the cursor that continues a listing after the user id. It
// is opaque to clients, and short.
func formatCursor(id string) string {
	raw, _ := parseID(id)
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// parseCursor returns the user id that a cursor stands for.
func parseCursor(cursor string) (id string, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) != 16 {
		return "", false
	}
	id = formatID([16]byte(raw))
	_, ok = parseID(id)
	return id, ok
}
