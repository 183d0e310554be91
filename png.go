package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// pngKept are the chunks that stay (PNG Third Edition, section 11), and whether they
// may occur more than once. All others are metadata, or unknown to browsers.
var pngKept = map[string]bool{
	"IHDR": false, "PLTE": false, "IDAT": true, "tRNS": false,
	"cHRM": false, "cICP": false, "gAMA": false, "iCCP": false, "mDCV": false, "cLLI": false, "sBIT": false, "sRGB": false,
	"bKGD": false, "pHYs": false, "eXIf": false, // only its orientation
	"acTL": false, "fcTL": true, "fdAT": true,
}

// pngDepths are the bit depths of each color type (section 11.2.1).
var pngDepths = map[byte]string{0: "\x01\x02\x04\x08\x10", 2: "\x08\x10", 3: "\x01\x02\x04\x08", 4: "\x08\x10", 6: "\x08\x10"}

var pngEnd = pngChunk("IEND", nil)

func pngChunk(kind string, body []byte) []byte {
	chunk := append(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), kind...), body...)
	return binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
}

// walkPNG walks chunks: length, type, body, CRC (section 5.3).
func walkPNG(data []byte) (clean []byte, info imageInfo, err error) {
	e := edit{data: data}
	seen := map[string]bool{}
	previous := ""
	for i := 8; ; {
		chunk := data[i:]
		// Browsers show an image whose last chunk is missing or cut.
		if seen["IDAT"] && bytes.HasPrefix(pngEnd, chunk) {
			return e.end(i, pngEnd...), info, nil
		}
		if len(chunk) < 12 || binary.BigEndian.Uint32(chunk) > uint32(len(chunk)-12) {
			return nil, info, errTruncated
		}
		chunk = chunk[:12+binary.BigEndian.Uint32(chunk)]
		kind, body, next := string(chunk[4:8]), chunk[8:len(chunk)-4], i+len(chunk)
		if kind == "IEND" {
			if !seen["IDAT"] {
				return nil, info, errNoPixels
			}
			return e.end(i, pngEnd...), info, nil
		}
		repeats, keep := pngKept[kind]
		critical := kind[0]&0x20 == 0 // section 5.4
		switch {
		case (kind == "IHDR") != (previous == ""):
			return nil, info, errors.New("its first chunk, and no other, must be IHDR")
		case kind == "IDAT" && seen["IDAT"] && previous != "IDAT": // section 5.6
			return nil, info, errors.New("its IDAT chunks are not consecutive")
		case critical && (!keep || !repeats && seen[kind]):
			return nil, info, fmt.Errorf("its critical chunk %q is unknown or repeated", kind)
		case !repeats && seen[kind], kind == "fcTL" && !seen["acTL"], kind == "fdAT" && !seen["fcTL"]:
			keep = false
		}
		if keep && crc32.ChecksumIEEE(chunk[4:8+len(body)]) != binary.BigEndian.Uint32(chunk[8+len(body):]) {
			if critical { // section 13.2
				return nil, info, fmt.Errorf("the CRC of its chunk %s is wrong", kind)
			}
			keep = false
		}
		switch {
		case !keep:
			e.replace(i, next)
		case kind == "IHDR":
			if len(body) != 13 || !strings.Contains(pngDepths[body[9]], string(body[8:9])) || body[10] != 0 || body[11] != 0 || body[12] > 1 {
				return nil, info, errors.New("its header is not valid")
			}
			info.width, info.height = int(binary.BigEndian.Uint32(body)), int(binary.BigEndian.Uint32(body[4:]))
			if err := checkSize(info.width, info.height); err != nil {
				return nil, info, err
			}
			// 4 channels of 8 or 16 bits; each pass of an interlaced image is an image too.
			info.decoded = float64(max(8, body[8]) / 8 * 4 * (1 + body[12]))
		case kind == "eXIf":
			if o := orientationOf(body); o == 1 {
				e.replace(i, next)
			} else {
				info.orientation = o
				e.replace(i, next, pngChunk("eXIf", exifOrientation(o))...)
			}
		case kind == "acTL":
			info.animated = true
		}
		if keep && !seen[kind] && (kind != "IDAT" || len(body) > 0) {
			seen[kind] = true
		}
		previous, i = kind, next
	}
}
