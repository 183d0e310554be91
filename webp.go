package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The flags of a VP8X chunk (RFC 9649, section 2.7).
const (
	webpAnimation = 0x02
	webpEXIF      = 0x08
	webpAlpha     = 0x10
	webpICC       = 0x20
)

// walkWebP walks the chunks of a RIFF file (RFC 9649, sections 2.3 to 2.7).
func walkWebP(data []byte) (clean []byte, info imageInfo, err error) {
	size := binary.LittleEndian.Uint32(data[4:])
	if int64(size) > int64(len(data)-8) || size < 12 || size%2 != 0 {
		return nil, info, errTruncated
	}
	e := edit{data: data[:8+size]}
	info.decoded = 11 // of lossy colors with lossless transparency
	var flags, kept byte
	var first string // VP8X in the extended format, else the image
	seen := map[string]bool{}
	err = editChunks(&e, 12, func(kind string, body []byte) ([]byte, error) {
		if !strings.Contains("VP8 VP8L VP8X ALPH ANIM ANMF ICCP EXIF", kind) {
			kind = "" // metadata, or unknown to browsers
		}
		repeated := seen[kind]
		seen[kind] = true
		if first == "" {
			first = kind
			if kind == "VP8X" && len(body) >= 10 {
				flags = body[0]
				info.width, info.height = 1+int(uint24(body[4:])), 1+int(uint24(body[7:]))
				info.animated = flags&webpAnimation != 0
				return body[:10], checkSize(info.width, info.height)
			}
		}
		extended := first == "VP8X"
		switch {
		case repeated && kind != "ANMF":
		case kind == "VP8 ", kind == "VP8L":
			if seen["VP8 "] && seen["VP8L"] || !extended && first != kind {
				return nil, nil
			}
			width, height, err := webpFrame(kind, body)
			switch {
			case err != nil:
				return nil, err
			case info.animated || seen["ANIM"]:
				return nil, errors.New("it has the flag of an animation and a single image")
			case extended && (width != info.width || height != info.height):
				return nil, fmt.Errorf("its image of %d × %d is not of the size of its canvas", width, height)
			}
			info.width, info.height = width, height
			return body, checkSize(width, height)
		case !extended:
			if first == kind {
				return nil, fmt.Errorf("its first chunk is %q", kind)
			}
		case kind == "ALPH" && !seen["VP8 "] && !seen["VP8L"]:
			return body, nil
		case kind == "ANIM" && info.animated && len(body) >= 6:
			return body[:6], nil
		case kind == "ANMF":
			if !info.animated || !seen["ANIM"] {
				return nil, errors.New("it has a frame and no header of an animation")
			}
			return webpAnimationFrame(body, info)
		case kind == "ICCP" && flags&webpICC != 0:
			kept |= webpICC
			return body, nil
		case kind == "EXIF" && flags&webpEXIF != 0:
			if o := orientationOf(bytes.TrimPrefix(body, []byte(exifHeader))); o != 1 {
				kept |= webpEXIF
				info.orientation = o
				return exifOrientation(o), nil
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, info, err
	}
	if !seen["VP8 "] && !seen["VP8L"] && !seen["ANMF"] {
		return nil, info, errNoPixels
	}
	clean = e.end(len(e.data))
	head := append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(clean)-8)), "WEBP"...)
	if first == "VP8X" {
		head = append(head, 'V', 'P', '8', 'X', 10, 0, 0, 0, flags&(webpAnimation|webpAlpha)|kept, 0, 0, 0)
	}
	if !bytes.HasPrefix(clean, head) {
		clean = append(head, clean[len(head):]...)
	}
	return clean, info, nil
}

// editChunks walks chunks: type, length, body, padding to an even length. It replaces
// each body by what visit returns, and removes the chunk if that is nil.
func editChunks(e *edit, i int, visit func(kind string, body []byte) ([]byte, error)) error {
	for len(e.data)-i >= 8 {
		n := int(binary.LittleEndian.Uint32(e.data[i+4:]))
		if n > len(e.data)-i-8 {
			return errTruncated
		}
		body := e.data[i+8 : i+8+n]
		kept, err := visit(string(e.data[i:i+4]), body)
		if err != nil {
			return err
		}
		next := min(i+8+n+n&1, len(e.data)) // the last chunk of a frame may lack its padding
		switch {
		case kept == nil:
			e.replace(i, next)
		case !bytes.Equal(kept, body):
			chunk := append(binary.LittleEndian.AppendUint32(nil, uint32(len(kept))), kept...)
			e.replace(i+4, next, append(chunk, make([]byte, len(kept)&1)...)...)
		}
		i = next
	}
	e.replace(i, len(e.data))
	return nil
}

// webpAnimationFrame returns an ANMF chunk's body with nothing but its image.
func webpAnimationFrame(body []byte, canvas imageInfo) ([]byte, error) {
	if len(body) < 16 {
		return nil, errTruncated
	}
	left, top := 2*int(uint24(body)), 2*int(uint24(body[3:]))
	width, height := 1+int(uint24(body[6:])), 1+int(uint24(body[9:]))
	if left+width > canvas.width || top+height > canvas.height {
		return nil, errors.New("a frame is outside its canvas")
	}
	e := edit{data: body}
	var alpha, image bool
	err := editChunks(&e, 16, func(kind string, body []byte) ([]byte, error) {
		switch {
		case image:
		case kind == "ALPH" && !alpha:
			alpha = true
			return body, nil
		case kind == "VP8 ", kind == "VP8L":
			image = true
			w, h, err := webpFrame(kind, body)
			if err == nil && (w != width || h != height) {
				err = fmt.Errorf("the image of a frame of %d × %d has %d × %d", width, height, w, h)
			}
			return body, err
		}
		return nil, nil
	})
	if err == nil && !image {
		err = errNoPixels
	}
	return e.end(len(body)), err
}

// webpFrame reads the size of an image from its first bytes: the frame header of VP8 (RFC
// 6386, section 9.1), or the header of lossless WebP (RFC 9649, section 3.4).
func webpFrame(kind string, body []byte) (width, height int, err error) {
	switch {
	case kind == "VP8 " && len(body) > 10 && string(body[3:6]) == "\x9d\x01\x2a" && body[0]&0x11 == 0x10: // a visible key frame
		if int(uint24(body)>>5) > len(body)-10 {
			return 0, 0, errTruncated
		}
		return int(binary.LittleEndian.Uint16(body[6:]) & 0x3fff), int(binary.LittleEndian.Uint16(body[8:]) & 0x3fff), nil
	case kind == "VP8L" && len(body) > 5 && body[0] == 0x2f && body[4]>>5 == 0:
		bits := binary.LittleEndian.Uint32(body[1:])
		return 1 + int(bits&0x3fff), 1 + int(bits>>14&0x3fff), nil
	}
	return 0, 0, errors.New("its image has no valid header")
}

func uint24(b []byte) uint32 { return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 }
