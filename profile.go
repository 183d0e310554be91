package main

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"hash/adler32"
	"io"
	"slices"
	"strings"
)

const (
	iccHeader     = "ICC_PROFILE\x00\x01\x01"   // before a profile that is whole in one segment of a JPEG (ICC.1:2022, annex B.4)
	maxProfile    = 0xffff - 2 - len(iccHeader) // bytes in such a segment
	maxProfileTag = 100                         // Little CMS refuses more
)

// profileTags are the tags of a color profile that stay as they are: what color engines read, and the copyright
// (ICC.1:2022, section 9.2).
var profileTags = strings.Fields(`A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 B2D0 B2D1 B2D2 B2D3 D2B0 D2B1 D2B2 D2B3
	rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC wtpt bkpt chad chrm cicp cprt gamt lumi meas pre0 pre1 pre2 rig0 rig2 tech view`)

// keepProfile sets the color profile of the image. It returns what stays of it: nothing if it is the second or
// broken, all of it if it is too large for a thumbnail, which is then not rendered.
func (w *walker) keepProfile(profile []byte) []byte {
	if w.profile != nil || w.pixels > 0 {
		return nil
	}
	if w.profile = profile; len(profile) <= maxProfile {
		w.profile = cleanProfile(slices.Clone(profile))
	}
	return w.profile
}

// cleanProfile sets to zero what no color engine reads: descriptions, private tags such as the model and the serial
// number of a monitor, what no tag contains, and the ID. Size and tag table stay. It returns nil for a broken profile.
func cleanProfile(profile []byte) []byte {
	const header, entrySize = 132, 12
	if len(profile) < header || string(profile[36:40]) != "acsp" {
		return nil
	}
	tags := int(binary.BigEndian.Uint32(profile[header-4:]))
	table := header + tags*entrySize
	if tags > maxProfileTag || table > len(profile) {
		return nil
	}
	type part struct{ from, to int }
	kept := []part{{0, table}}
	for entry := range slices.Chunk(profile[header:table], entrySize) {
		from, size := int(binary.BigEndian.Uint32(entry[4:])), int(binary.BigEndian.Uint32(entry[8:]))
		if from > len(profile) || size > len(profile)-from {
			return nil
		}
		kept = append(kept, part{from, from + keptOfTag(string(entry[:4]), profile[from:from+size])})
	}
	clear(profile[84:100]) // the ID is a checksum
	slices.SortFunc(kept, func(a, b part) int { return cmp.Compare(a.from, b.from) })
	end := 0
	for _, k := range kept { // tags may share content
		clear(profile[min(end, k.from):k.from])
		end = max(end, k.to)
	}
	clear(profile[end:])
	return profile
}

// keptOfTag returns how many bytes of a tag stay: all, those before a text (ICC.1:2001-04, section 6.5.17;
// ICC.1:2022, section 10.15), or the type.
func keptOfTag(name string, tag []byte) int {
	switch {
	case slices.Contains(profileTags, name):
		return len(tag)
	case len(tag) > 12 && string(tag[:4]) == "desc":
		return 12
	case len(tag) > 16 && string(tag[:4]) == "mluc":
		records := int(binary.BigEndian.Uint32(tag[8:]))
		return min(16+12*records, len(tag))
	}
	return min(len(tag), 4)
}

// pngProfile returns what stays of the chunk of a profile: name, 0, 0, the profile compressed (PNG Third Edition,
// section 11.3.2.3). What is written anew is not compressed, since a compressor takes 0.7 MB.
func (w *walker) pngProfile(chunk []byte) []byte {
	name, compressed, _ := bytes.Cut(chunk[8:len(chunk)-4], []byte{0})
	reader, err := zlib.NewReader(bytes.NewReader(compressed[min(1, len(compressed)):]))
	if err != nil {
		return nil
	}
	profile, err := io.ReadAll(io.LimitReader(reader, int64(maxProfile)+1))
	if err != nil {
		return nil
	}
	clean := w.keepProfile(profile)
	switch {
	case clean == nil:
		return nil
	case bytes.Equal(clean, profile) && (string(name) == "icc" || len(profile) > maxProfile):
		return chunk
	}
	return pngProfileChunk(clean)
}

// pngProfileChunk writes a profile in one stored block (RFC 1950; RFC 1951, section 3.2.4).
func pngProfileChunk(profile []byte) []byte {
	size := uint16(len(profile)) // #nosec G115 -- at most maxProfile
	body := append([]byte("icc\x00\x00\x78\x01\x01"), byte(size), byte(size>>8), ^byte(size), ^byte(size>>8))
	body = binary.BigEndian.AppendUint32(append(body, profile...), adler32.Checksum(profile))
	return pngChunk("iCCP", body)
}

// withProfile inserts a profile into an encoded thumbnail: after IHDR of a PNG, after SOI of a JPEG.
func withProfile(thumb, profile []byte) []byte {
	switch {
	case len(profile) == 0:
		return thumb
	case bytes.HasPrefix(thumb, []byte(pngSignature)):
		return slices.Insert(thumb, len(pngSignature)+25, pngProfileChunk(profile)...)
	}
	size := uint16(2 + len(iccHeader) + len(profile)) // #nosec G115 -- at most 0xffff
	segment := append(binary.BigEndian.AppendUint16([]byte{0xff, 0xe2}, size), iccHeader...)
	return slices.Insert(thumb, 2, append(segment, profile...)...)
}
