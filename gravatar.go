package main

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"image/color"
	"math"
	"net/http"
	"path"
	"slices"
	"strings"
)

// getByHash answers GET and HEAD /avatar/{hash} for the clients of Gravatar and Libravatar
// (wiki.libravatar.org/api): with the thumbnail of the user whose email has this SHA-256, or with a
// default picture, of one kind. Of the query, only d=404 and f=y count.
func (s *server) getByHash(w *response, r *http.Request) error {
	sum, isHash := parseHash(r.PathValue("hash"))
	query := r.URL.Query()
	forced := cmp.Or(query.Get("f"), query.Get("forcedefault")) == "y"

	var err error = notFound("image not found")
	if isHash && !forced {
		w.user = idOf(sum)
		err = s.withImage(w, r, "thumbnail", func(u User) error {
			if emailHash(u.Email) != sum { // the id is only half of it
				return notFound("image not found")
			}
			w.setImageHeader("max-age=300")
			return s.serveThumbnail(w, r, u.Avatar)
		})
	}
	noDefault := cmp.Or(query.Get("d"), query.Get("default")) == "404"
	if err == nil || noDefault || problemOf(err).Status != http.StatusNotFound {
		return err
	}
	w.setImageHeader("max-age=300")
	picture := identicon(sum)
	return w.serveImage(r, "identicon", "image/png", int64(len(picture)), inMemory(picture))
}

// parseHash returns the hash in a path: 64 hex digits, or that of an email, with or without the
// extension of an image file. Of anything else, such as an MD5, it returns another hash, and false.
func parseHash(name string) (sum [sha256.Size]byte, ok bool) {
	ext := path.Ext(name)
	if slices.Contains([]string{".jpg", ".jpeg", ".png", ".gif", ".webp"}, strings.ToLower(ext)) {
		name = strings.TrimSuffix(name, ext)
	}
	if digest, err := hex.DecodeString(name); err == nil && len(digest) == sha256.Size {
		return [sha256.Size]byte(digest), true
	}
	if email, err := cleanEmail(name); err == nil {
		return emailHash(email), true
	}
	return sha256.Sum256([]byte(name)), false
}

// identicon returns the default picture of a hash, a PNG of 256 × 256 pixels: a mirrored pattern
// of 5 × 5 cells in two colors on a light background. All pictures have the same luminance.
func identicon(sum [sha256.Size]byte) []byte {
	hue := float64(sum[0]) / 256
	accent := hue + 0.1 + float64(sum[1])/256*0.8
	palette := slices.Concat(tint(hue, 228, 9), tint(hue, 105, 50), tint(accent, 168, 48))
	var cells [7][7]byte // with a margin
	for i, b := range sum[2:17] {
		x, y, c := i%3, i/3, b%8/3
		cells[1+y][1+x], cells[1+y][5-x] = c, c
	}

	var pixels bytes.Buffer
	z, _ := zlib.NewWriterLevel(&pixels, 2) // half of the default's CPU time, 300 bytes, not 120
	var line [1 + 256/4]byte                // no filter, then four pixels a byte
	for y := range 256 {
		for i := range 256 / 4 {
			line[1+i] = cells[(y+12)/40][(4*i+12)/40] * 0b01_01_01_01
		}
		z.Write(line[:])
	}
	z.Close()
	return slices.Concat([]byte(pngSignature),
		pngChunk("IHDR", []byte{2: 1, 6: 1, 8: 2, 9: 3, 12: 0}), // two bits a pixel, with a palette
		pngChunk("PLTE", palette), pngChunk("IDAT", pixels.Bytes()), pngEnd)
}

// tint returns the red, green and blue of a hue from 0 to 1.
func tint(hue float64, luma uint8, chroma float64) []byte {
	sin, cos := math.Sincos(2 * math.Pi * hue)
	red, green, blue := color.YCbCrToRGB(luma, uint8(128+chroma*sin), uint8(128+chroma*cos))
	return []byte{red, green, blue}
}
