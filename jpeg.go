package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// walkJPEG walks marker segments, and scans up to the next marker (ITU T.81, section B.1.1).
// Between segments it skips stray bytes, as browsers do.
func walkJPEG(data []byte) (clean []byte, info imageInfo, err error) {
	e := edit{data: data}
	body := data[:len(data)-samsungTrailer(data)]
	var inScan, exif bool
	pixels := 0    // bytes of scans
	i, gap := 2, 2 // gap is the end of the last segment
	for {
		at := bytes.IndexByte(body[i:], 0xff)
		fill := i + at // markers may be preceded by fill bytes (section B.1.1.2)
		if at < 0 {
			fill = len(body)
		}
		i = fill
		for i < len(body) && body[i] == 0xff {
			i++
		}
		marker := byte(0xd9)
		switch {
		case i < len(body):
			marker = body[i]
		case !inScan || len(body) == len(data):
			return nil, info, errTruncated
		default: // a Samsung trailer in place of EOI
			i = fill + 1
		}
		if marker <= 1 || marker >= 0xd0 && marker <= 0xd7 { // a stuffed byte, TEM, RST
			i++
			continue
		}
		if inScan {
			pixels += fill - gap
			gap = fill
		}
		inScan = false
		start := i - 1
		e.replace(gap, start)
		if marker == 0xd9 { // EOI
			if pixels == 0 {
				return nil, info, errNoPixels
			}
			return e.end(start, 0xff, 0xd9), info, nil
		}
		if len(body)-i < 3 {
			return nil, info, errTruncated
		}
		n := max(int(binary.BigEndian.Uint16(body[i+1:])), 2) // browsers take less for an empty segment
		if n > len(body)-i-1 {
			return nil, info, errTruncated
		}
		end := i + 1 + n
		segment := body[i+3 : end]
		switch {
		case marker == 0xc4, marker == 0xdb, marker == 0xdd: // DHT, DQT, DRI
		case marker >= 0xc0 && marker <= 0xc2: // SOF (section B.2.2)
			if info.width != 0 {
				return nil, info, errors.New("it has two frame headers")
			}
			if err := readFrameHeader(&info, segment, marker == 0xc2); err != nil {
				return nil, info, err
			}
		case marker >= 0xc9 && marker <= 0xcf && marker != 0xcc:
			return nil, info, unsupported("avatar is a JPEG with arithmetic coding, which not all browsers show; save it as a baseline or progressive JPEG")
		case marker >= 0xc3 && marker <= 0xc7:
			return nil, info, unsupported("avatar is a lossless or hierarchical JPEG, which browsers do not show; save it as a baseline or progressive JPEG")
		case marker == 0xda: // SOS (section B.2.3)
			if info.width == 0 || len(segment) < 6 || len(segment) != 4+2*int(segment[0]) {
				return nil, info, errors.New("its scan header is not valid")
			}
			inScan = true
			info.scans++
		case marker >= 0xe0 && marker <= 0xef: // APPn
			kept := keptOfAPP(marker, segment, exif)
			if marker == 0xe1 && bytes.HasPrefix(segment, []byte(exifHeader)) && !exif {
				exif, info.orientation = true, orientationOf(segment[len(exifHeader):])
			}
			if len(kept) == 0 {
				e.replace(start, end)
			} else if !bytes.Equal(kept, segment) {
				e.replace(start, end, append([]byte{0xff, marker, 0, byte(2 + len(kept))}, kept...)...)
			}
		case marker == 0xfe, marker == 0xdc, marker == 0xcc: // COM; DNL and DAC, which browsers ignore
			e.replace(start, end)
		default:
			return nil, info, fmt.Errorf("its marker %02X is unknown or out of place", marker)
		}
		i, gap = end, end
	}
}

// readFrameHeader reads what follows SOF: bits a sample, height, width, number of components,
// and for each its id, sampling factors and table.
func readFrameHeader(info *imageInfo, segment []byte, progressive bool) error {
	if len(segment) < 9 || len(segment) != 6+3*int(segment[5]) {
		return errors.New("its frame header is not valid")
	}
	info.height, info.width = int(binary.BigEndian.Uint16(segment[1:])), int(binary.BigEndian.Uint16(segment[3:]))
	components := segment[5]
	if segment[0] != 8 || components > 4 {
		return unsupported("avatar is a JPEG of %d bits and %d components, which browsers do not show; save it with 8 bits, in color or gray", segment[0], components)
	}
	var samples, across, down byte
	for c := segment[6:]; len(c) > 0; c = c[3:] {
		h, v := c[1]>>4, c[1]&15
		if h < 1 || h > 4 || v < 1 || v > 4 {
			return errors.New("its sampling factors are not valid")
		}
		samples, across, down = samples+h*v, max(across, h), max(down, v)
	}
	// A byte a sample, and a 32-bit coefficient with progressive coding. Then RGB and CMYK
	// are converted into another image.
	info.decoded = float64(samples) / float64(across*down)
	if progressive {
		info.decoded *= 5
	}
	if components > 1 {
		info.decoded += 4
	}
	return checkSize(info.width, info.height)
}

// keptOfAPP returns what stays of an application segment: all of a color profile (ICC.1,
// annex B.4), the colors and the density in JFIF and Adobe segments without a thumbnail,
// and the orientation in the first EXIF segment.
func keptOfAPP(marker byte, segment []byte, exifSeen bool) []byte {
	is := func(m byte, id string) bool { return marker == m && bytes.HasPrefix(segment, []byte(id)) }
	switch {
	case is(0xe0, "JFIF\x00") && len(segment) >= 14:
		return append(segment[:12:12], 0, 0)
	case is(0xe0, "JFIF\x00"):
		return segment
	case is(0xe1, exifHeader) && !exifSeen:
		if o := orientationOf(segment[len(exifHeader):]); o != 1 {
			return append([]byte(exifHeader), exifOrientation(o)...)
		}
	case is(0xe2, "ICC_PROFILE\x00"):
		return segment
	case is(0xee, "Adobe") && len(segment) >= 12:
		return segment[:12]
	}
	return nil
}

// samsungTrailer returns the length of the trailer that Samsung cameras append, sometimes
// in place of the image's last marker. It ends with a directory: "SEFH", version, number of
// entries, entries (2 bytes, type, distance from the directory back to the content, size);
// then the directory's length and "SEFT".
func samsungTrailer(data []byte) int {
	if !bytes.HasSuffix(data, []byte("SEFT")) || len(data) < 20 {
		return 0
	}
	length := int(binary.LittleEndian.Uint32(data[len(data)-8:]))
	at := len(data) - 8 - length
	if length < 12 || at < 2 || string(data[at:at+4]) != "SEFH" {
		return 0
	}
	content := 0
	for entry := at + 12; entry+12 <= len(data)-8; entry += 12 {
		content = max(content, int(binary.LittleEndian.Uint32(data[entry+4:])))
	}
	if content > at-2 {
		return 0
	}
	return len(data) - at + content
}
