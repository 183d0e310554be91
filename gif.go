package main

import (
	"encoding/binary"
	"fmt"
)

// walkGIF walks blocks (GIF89a, sections 12 to 27) up to the trailer or the given
// number of frames, and ends the image there.
func walkGIF(data []byte, frames int) (clean []byte, info imageInfo, err error) {
	e := edit{data: data}
	if len(data) < 13 {
		return nil, info, errTruncated
	}
	info.width, info.height = int(binary.LittleEndian.Uint16(data[6:])), int(binary.LittleEndian.Uint16(data[8:]))
	info.decoded = 1 + 4 // an index into the palette; and the frame on its screen
	seen, pixels := 0, 0 // frames, and bytes of their sub-blocks
	i := 13 + gifColors(data[10])
	for i < len(data) && seen < frames {
		start := i
		switch kind := data[i]; {
		case kind == 0x21 && len(data)-i >= 2: // extension: label, sub-blocks
			var kept []byte
			if i = gifBlocks(data, i+2); i <= len(data) {
				kept = keptOfExtension(data[start:i])
				e.replace(start, i, kept...)
			}
		case kind == 0x2c && len(data)-i >= 10: // position, size, flags, color table, code size, sub-blocks
			left, top := int(binary.LittleEndian.Uint16(data[i+1:])), int(binary.LittleEndian.Uint16(data[i+3:]))
			width, height := int(binary.LittleEndian.Uint16(data[i+5:])), int(binary.LittleEndian.Uint16(data[i+7:]))
			if seen == 0 { // it enlarges the screen, in browsers
				info.width, info.height = max(info.width, left+width), max(info.height, top+height)
				if err := checkSize(info.width, info.height); err != nil {
					return nil, info, err
				}
			} else if width*height > maxPixels {
				return nil, info, tooLarge("avatar may have at most %d pixels; a frame has %d × %d", maxPixels, width, height)
			}
			blocks := i + 10 + gifColors(data[i+9]) + 1
			i = gifBlocks(data, blocks)
			pixels += i - blocks - 1
			seen++
		case kind == 0x00: // padding
			i++
			e.replace(start, i)
		case kind == 0x3b, seen > 0 && kind != 0x21 && kind != 0x2c:
			// The trailer, or what browsers take for it.
			frames = seen
		case kind == 0x21, kind == 0x2c:
			return nil, info, errTruncated
		default:
			return nil, info, fmt.Errorf("it has a block of the unknown type %#02x", kind)
		}
	}
	switch {
	case i > len(data):
		return nil, info, errTruncated
	case pixels == 0:
		return nil, info, errNoPixels
	}
	info.animated = seen > 1
	return e.end(i, 0x3b), info, nil
}

// gifColors is the size in bytes of the color table that a packed field announces.
func gifColors(packed byte) int {
	if packed&0x80 == 0 {
		return 0
	}
	return 3 << (packed&7 + 1)
}

// gifBlocks returns the end of the sub-blocks that start at i, with their terminator
// (sections 15, 16), or more than len(data) if they are cut.
func gifBlocks(data []byte, i int) int {
	for i < len(data) && data[i] != 0 {
		i += 1 + int(data[i])
	}
	return i + 1
}

// keptOfExtension returns what stays of an extension block: the delay and the transparent
// color, the number of loops, and a color profile. The rest of it is text or metadata.
func keptOfExtension(block []byte) []byte {
	application := ""
	if len(block) > 14 && block[2] == 11 {
		application = string(block[3:14])
	}
	switch {
	case block[1] == 0xf9 && len(block) >= 8 && block[2] >= 4: // section 23
		return append([]byte{0x21, 0xf9, 4}, block[3], block[4], block[5], block[6], 0)
	case block[1] != 0xff:
	case application == "ICCRGBG1012":
		return block
	case application == "NETSCAPE2.0", application == "ANIMEXTS1.0":
		for b := block[14:]; b[0] != 0; b = b[1+b[0]:] {
			if b[0] >= 3 && b[1] == 1 {
				return append(block[:14:14], 3, 1, b[2], b[3], 0)
			}
		}
	}
	return nil
}
