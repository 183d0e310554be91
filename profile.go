package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/adler32"
	"io"
	"slices"
	"strings"
)

const (
	// iccHeader precedes a profile that is whole in one segment of a JPEG (ICC.1:2022, annex B.4).
	iccHeader     = "ICC_PROFILE\x00\x01\x01"
	maxProfile    = 0xffff - 2 - len(iccHeader) // bytes in such a segment
	maxProfileTag = 100                         // Little CMS refuses more
)

// profileTags are the tags of a color profile that stay as they are: what color engines read, and
// the copyright (ICC.1:2022, section 9.2).
var profileTags = strings.Fields(`A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 B2D0 B2D1 B2D2 B2D3 D2B0 D2B1 D2B2 D2B3
	rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC wtpt bkpt chad chrm cicp cprt gamt lumi meas pre0 pre1 pre2 rig0 rig2 tech view`)

// keepProfile sets the color profile of the image. It returns what stays of it: nothing if it is
// the second or broken, all of it if it is too large for a thumbnail, which is then not rendered.
func (w *walker) keepProfile(profile []byte) []byte {
	if w.profile != nil || w.pixels > 0 {
		return nil
	}
	w.profile = profile
	if len(profile) <= maxProfile {
		w.profile = cleanProfile(profile)
	}
	return w.profile
}

// cleanProfile returns a copy with only what color engines read, or nil for a broken profile. Zeros
// replace descriptions, private tags such as a monitor's serial number, unused bytes and the ID.
func cleanProfile(profile []byte) []byte {
	const header, entrySize = 132, 12
	if len(profile) < header || string(profile[36:40]) != "acsp" {
		return nil
	}
	count := int(binary.BigEndian.Uint32(profile[header-4:]))
	table := header + count*entrySize
	if count > maxProfileTag || table > len(profile) {
		return nil
	}
	clean := make([]byte, len(profile))
	copy(clean, profile[:table])
	for entry := range slices.Chunk(profile[header:table], entrySize) {
		from, size := int(binary.BigEndian.Uint32(entry[4:])), int(binary.BigEndian.Uint32(entry[8:]))
		if from > len(profile) || size > len(profile)-from {
			return nil
		}
		tag := profile[from : from+size]
		copy(clean[from:], tag[:keptOfTag(string(entry[:4]), tag)]) // tags may share content
	}
	clear(clean[84:100]) // the ID is a checksum
	return clean
}

// keptOfTag returns how many bytes of a tag stay: all that color engines read, those before a text
// (ICC.1:2001-04, section 6.5.17; ICC.1:2022, section 10.15), or the type.
func keptOfTag(name string, tag []byte) int {
	kept := 4
	switch {
	case slices.Contains(profileTags, name):
		return len(tag)
	case bytes.HasPrefix(tag, []byte("desc")):
		kept = 12
	case bytes.HasPrefix(tag, []byte("mluc")) && len(tag) > 12:
		kept = 16 + 12*int(binary.BigEndian.Uint32(tag[8:]))
	}
	return min(kept, len(tag))
}

// pngProfile returns what stays of a profile's chunk: name, 0, 0, compressed profile (PNG Third
// Edition, section 11.3.2.3). A new one is not compressed, since a compressor takes 0.7 MB.
func (w *walker) pngProfile(chunk []byte) []byte {
	name, compressed, _ := bytes.Cut(chunk[8:len(chunk)-4], []byte{0})
	source := bytes.NewReader(compressed[min(1, len(compressed)):])
	reader, err := zlib.NewReader(source)
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
	case len(profile) > maxProfile, bytes.Equal(clean, profile) && string(name) == "icc" && source.Len() == 0:
		return chunk
	}
	return pngProfileChunk(clean)
}

// pngProfileChunk writes a profile in one stored block (RFC 1950; RFC 1951, section 3.2.4).
func pngProfileChunk(profile []byte) []byte {
	size := uint16(len(profile)) // #nosec G115 -- at most maxProfile
	body := []byte("icc\x00\x00\x78\x01\x01")
	body = binary.LittleEndian.AppendUint16(body, size)
	body = binary.LittleEndian.AppendUint16(body, ^size)
	body = binary.BigEndian.AppendUint32(append(body, profile...), adler32.Checksum(profile))
	return pngChunk("iCCP", body)
}

// withProfile inserts a profile into a thumbnail: after IHDR of a PNG, after SOI of a JPEG.
func withProfile(thumb, profile []byte) []byte {
	switch {
	case len(profile) == 0:
		return thumb
	case bytes.HasPrefix(thumb, []byte(pngSignature)):
		return slices.Insert(thumb, len(pngSignature)+25, pngProfileChunk(profile)...)
	}
	return slices.Insert(thumb, 2, appSegment(0xe2, slices.Concat([]byte(iccHeader), profile))...)
}
