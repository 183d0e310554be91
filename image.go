package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"
)

const (
	maxPixels = 40_000_000 // width × height of the canvas
	maxSide   = 65_535     // the limit of JPEG and GIF
	maxGrowth = 64         // bytes that a missing end adds at most

	exifHeader = "Exif\x00\x00" // precedes EXIF data in a JPEG, and in some WebP
	// exifDirectory is EXIF data up to the value of an orientation.
	exifDirectory = "MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"
)

// walks are the accepted formats.
var walks = map[string]func(*walker){
	"image/png": (*walker).png, "image/jpeg": (*walker).jpeg, "image/gif": (*walker).gif, "image/webp": (*walker).webp,
}

// otherFormats are refused by name: content of the first 8 bytes, of the first 1,024 bytes, name.
var otherFormats = []struct{ magic, text, name string }{
	{"ftyp", "avif", "an AVIF image"},
	{"ftyp", "heic", "a HEIC image"}, {"ftyp", "mif1", "a HEIC image"},
	{"ftyp", "", "a video"},
	{"JXL ", "", "a JPEG XL image"}, {"\xff\x0a", "", "a JPEG XL image"},
	{"II*\x00", "", "a TIFF or raw image"}, {"MM\x00*", "", "a TIFF or raw image"},
	{"", "<svg", "an SVG image, which may contain scripts"},
}

// cleanImage checks the structure of an image and returns the image without metadata, and its media
// type. With nothing to remove, it returns data itself. Errors are problems for the client.
func cleanImage(data []byte) (clean []byte, mediaType string, err error) {
	w := walker{data: data}
	if err := w.run(); err != nil {
		return nil, "", err
	}
	return w.clean(), w.mediaType, nil
}

// A walker reads the structure of an image once, from beginning to end, and replaces parts of it.
type walker struct {
	data      []byte
	mediaType string
	out       []byte // data[:done] after replacements; nil while nothing has changed
	done      int

	width, height int
	pixels        int     // bytes of compressed pixels
	orientation   byte    // EXIF: 0 if missing, 1 if upright, 2 to 8 if the image must be turned
	flags         byte    // WebP: of VP8X
	scans         int     // JPEG
	gray          bool    // PNG and JPEG; with alpha, too
	profile       []byte  // the color profile, cleaned
	misleading    bool    // browsers show other colors, or another frame, than Go decodes
	decoded       float64 // bytes per pixel that Go's decoder allocates at most
	converted     bool    // JPEG: Go makes RGBA of it, of 4 bytes per pixel
	trees         bool    // WebP: a lossless image, or lossless transparency
}

// run walks the image. To refuse it, a walk panics with a problem for the client.
func (w *walker) run() (err error) {
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case *problem:
			err = fault
		default:
			panic(fault)
		}
	}()
	w.mediaType = http.DetectContentType(w.data)
	if walk := walks[w.mediaType]; walk != nil {
		walk(w)
		return nil
	}
	if len(w.data) == 0 {
		return badField("avatar", "the image is empty")
	}
	name, _, _ := strings.Cut(w.mediaType, ";")
	magic, text := string(w.data[:min(len(w.data), 8)]), strings.ToLower(string(w.data[:min(len(w.data), 1024)]))
	for _, f := range otherFormats {
		if strings.Contains(magic, f.magic) && strings.Contains(text, f.text) {
			name = f.name
			break
		}
	}
	return unsupported("avatar is %s, which is not accepted; convert it to PNG, JPEG, GIF or WebP", name)
}

// require refuses the image unless ok. The message is a sentence about "it".
func (w *walker) require(ok bool, format string, args ...any) {
	if !ok {
		name := strings.ToUpper(strings.TrimPrefix(w.mediaType, "image/"))
		fault := fmt.Sprintf(format, args...)
		panic(badField("avatar", "the %s image is broken: %s; save it again, or send the whole file", name, fault))
	}
}

// take returns the n bytes at i.
func (w *walker) take(i, n int) []byte {
	w.require(n <= len(w.data)-i, "it is truncated")
	return w.data[i : i+n]
}

// setSize sets the size of the canvas, within the limits.
func (w *walker) setSize(width, height int) {
	w.width, w.height = width, height
	w.require(width > 0 && height > 0, "it has no pixels (%d × %d)", width, height)
	if width > maxSide || height > maxSide || width*height > maxPixels {
		panic(tooLarge("avatar may have at most %d pixels, %d a side; it has %d × %d: make it smaller",
			maxPixels, maxSide, width, height))
	}
}

// replace replaces data[from:to]. What is not replaced stays.
func (w *walker) replace(from, to int, with ...byte) {
	if bytes.Equal(w.data[from:to], with) {
		return
	}
	if w.out == nil {
		w.out = make([]byte, 0, len(w.data)+maxGrowth)
	}
	w.out = append(append(w.out, w.data[w.done:from]...), with...)
	w.done = to
}

// end replaces everything after the image, usually by the end that may be missing.
func (w *walker) end(at int, with ...byte) {
	w.require(w.pixels > 0, "it has no image data")
	w.replace(at, len(w.data), with...)
}

// cost returns what Go's decoder takes for the image, in pixels of thumbnailPixelBytes bytes.
func (w *walker) cost() int64 {
	pixels := float64(w.width * w.height)
	memory := w.decoded * pixels
	if w.converted {
		memory += 4 * pixels
	}
	if w.trees {
		// Huffman trees: 256 bytes for a byte that describes them, at most 2,600 groups of 52 kB.
		memory += float64(min(256*len(w.data), 2600*52_000))
	}
	return int64(max(pixels, memory/thumbnailPixelBytes))
}

// clean returns data after all replacements.
func (w *walker) clean() []byte {
	if w.out == nil {
		return w.data
	}
	return append(w.out, w.data[w.done:]...)
}

// littleEndian returns the number in all of b.
func littleEndian(b []byte) (n int) {
	for i, c := range b {
		n |= int(c) << (8 * i)
	}
	return n
}

// keepOrientation returns EXIF data with only the orientation, or nil if the image is upright
// (TIFF 6.0, section 2; EXIF 2.32, section 4.6.4). Only the first EXIF data of an image counts.
func (w *walker) keepOrientation(data []byte) []byte {
	first := w.orientation == 0
	w.orientation = max(w.orientation, 1)
	exif := bytes.TrimPrefix(data, []byte(exifHeader))
	var order binary.ByteOrder = binary.BigEndian
	if bytes.HasPrefix(exif, []byte("II")) {
		order = binary.LittleEndian
	}
	if !first || len(exif) < 8 || order.Uint16(exif[2:]) != 42 || int(order.Uint32(exif[4:])) > len(exif)-2 {
		return nil
	}
	directory := exif[order.Uint32(exif[4:]):]
	for i := range min(int(order.Uint16(directory)), (len(directory)-2)/12) {
		entry := directory[2+12*i:]
		tag, kind, value := order.Uint16(entry), order.Uint16(entry[2:]), order.Uint16(entry[8:])
		if tag == 0x0112 && kind == 3 && value > 1 && value <= 8 {
			w.orientation = byte(value)
			header := data[:len(data)-len(exif)]
			return slices.Concat(header, []byte(exifDirectory), []byte{w.orientation, 0, 0, 0, 0, 0, 0})
		}
	}
	return nil
}

// pngKept are the chunks that stay (PNG Third Edition, section 11), of eXIf only the orientation.
var pngKept = strings.Fields(`IHDR PLTE IDAT tRNS bKGD pHYs acTL fcTL fdAT
	cHRM cICP gAMA iCCP mDCV cLLI sBIT sRGB eXIf`)

// pngDepths are the bit depths of each color type (section 11.2.1).
var pngDepths = map[byte]string{
	0: "\x01\x02\x04\x08\x10", 2: "\x08\x10", 3: "\x01\x02\x04\x08", 4: "\x08\x10", 6: "\x08\x10",
}

const (
	pngSignature = "\x89PNG\r\n\x1a\n"
	pngSRGB      = "\x01\x0d\x00\x01" // as coding-independent code points (section 11.3.2.6)
)

// comparePNG marks the image as misleading if a value differs by more than 5 % from that of sRGB.
func (w *walker) comparePNG(body []byte, srgb ...int) {
	for i, standard := range srgb[:min(len(srgb), len(body)/4)] {
		value := int(binary.BigEndian.Uint32(body[4*i:]))
		if value < standard*95/100 || value > standard*105/100 {
			w.misleading = true
		}
	}
}

var pngEnd = pngChunk("IEND", nil)

func pngChunk(kind string, body []byte) []byte {
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(body))) // #nosec G115 -- small
	chunk = append(append(chunk, kind...), body...)
	return binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
}

// png walks chunks: length, type, body, CRC (section 5.3).
func (w *walker) png() {
	var animated, framed, profiled bool
	for i := len(pngSignature); ; { // up to IEND
		// Browsers show an image whose last chunk is missing, cut or wrong.
		if rest := w.data[i:]; bytes.HasPrefix(pngEnd, rest) || len(rest) >= 8 && string(rest[4:8]) == "IEND" {
			w.end(i, pngEnd...)
			return
		}
		n := int(binary.BigEndian.Uint32(w.take(i, 4)))
		chunk := w.take(i, 12+n)
		kind, body := string(chunk[4:8]), chunk[8:8+n]
		keep := slices.Contains(pngKept, kind) && (animated || kind != "fcTL" && kind != "fdAT")
		intact := crc32.ChecksumIEEE(chunk[4:8+n]) == binary.BigEndian.Uint32(chunk[8+n:])
		ancillary := kind[0]&0x20 != 0 // section 5.4
		w.require(keep || ancillary, "its critical chunk %q is unknown", kind)
		w.require(intact || ancillary, "the CRC of its chunk %s is wrong", kind) // section 13.2
		first := i == len(pngSignature)
		w.require(first == (kind == "IHDR"), "its first chunk is not its only IHDR")
		kept := chunk
		switch {
		case !keep, !intact, kind == "iCCP" && profiled:
			kept = nil
		case kind == "IHDR":
			w.require(n == 13 && body[10]|body[11] == 0 && body[12] <= 1, "its header is not valid")
			w.require(strings.Contains(pngDepths[body[9]], string(body[8:9])), "its header is not valid")
			w.setSize(int(binary.BigEndian.Uint32(body)), int(binary.BigEndian.Uint32(body[4:])))
			w.gray = body[9] == 0 || body[9] == 4 // with alpha
			// 4 channels of 8 or 16 bits; each pass of an interlaced image is an image too.
			w.decoded = float64(max(8, body[8]) / 8 * 4 * (1 + body[12]))
		case kind == "IDAT":
			w.pixels += n
			w.misleading = w.misleading || animated && !framed // the image is no frame
		case kind == "acTL":
			animated = true
		case kind == "fcTL":
			framed = true
		case kind == "iCCP":
			kept, profiled = w.pngProfile(chunk), true // one only: each may unpack to 64 kB
		case kind == "gAMA": // section 11.3.2.2
			w.comparePNG(body, 45_455)
		case kind == "cHRM": // section 11.3.2.1
			w.comparePNG(body, 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
		case kind == "cICP":
			w.misleading = w.misleading || string(body) != pngSRGB
		case kind == "eXIf":
			if kept = w.keepOrientation(body); kept != nil {
				kept = pngChunk("eXIf", kept)
			}
		}
		w.replace(i, i+len(chunk), kept...)
		i += len(chunk)
	}
}

// jpeg walks marker segments and scans (ITU T.81, section B.1.1). Stray bytes are removed.
func (w *walker) jpeg() {
	w.data = withoutSamsungTrailer(w.data)
	for i := 2; ; { // after SOI, up to EOI
		start := w.jpegMarker(i)
		w.replace(i, start)
		marker := w.data[start+1]
		if marker == 0xd9 { // EOI
			w.end(start, 0xff, 0xd9)
			return
		}
		n := max(2, int(binary.BigEndian.Uint16(w.take(start+2, 2)))) // browsers accept less
		segment, end := w.take(start+2, n)[2:], start+2+n
		i = end
		switch {
		case marker == 0xc4, marker == 0xdb, marker == 0xdd: // DHT, DQT, DRI
		case marker == 0xda: // SOS (section B.2.3)
			valid := w.width != 0 && len(segment) >= 6 && len(segment) == 4+2*int(segment[0])
			w.require(valid, "its scan header is not valid")
			w.scans++
			i = w.jpegMarker(end)
			w.pixels += i - end
		case marker&0xf0 == 0xc0: // SOF, DAC
			w.jpegFrame(marker, segment)
		default: // APP; COM; DNL, which browsers ignore
			known := marker&0xf0 == 0xe0 || marker == 0xfe || marker == 0xdc
			w.require(known, "its marker %02X is unknown or out of place", marker)
			w.replace(start, end, appSegment(marker, w.jpegKept(marker, segment))...)
		}
	}
}

// jpegMarker returns the position of the next marker, skipping stuffed zeros, fill, RST and TEM.
func (w *walker) jpegMarker(i int) int {
	for {
		at := bytes.IndexByte(w.data[i:], 0xff)
		w.require(at >= 0, "it is truncated")
		i += at + 1
		if c := w.take(i, 1)[0]; c > 0x01 && c != 0xff && c&0xf8 != 0xd0 {
			return i - 1
		}
	}
}

// jpegFrame reads a frame header (section B.2.2): precision, height, width and components.
func (w *walker) jpegFrame(marker byte, segment []byte) {
	if marker > 0xc2 || !bytes.HasPrefix(segment, []byte{8}) {
		panic(unsupported("avatar is a lossless, hierarchical, arithmetic-coded or not 8-bit " +
			"JPEG; save it as a baseline or progressive JPEG"))
	}
	valid := w.width == 0 && len(segment) >= 9 && segment[5] <= 4 && len(segment) == 6+3*int(segment[5])
	w.require(valid, "its frame header is not valid")
	var samples, across, down byte
	for component := range slices.Chunk(segment[6:], 3) {
		h, v := component[1]>>4, component[1]&15
		w.require(h >= 1 && h <= 4 && v >= 1 && v <= 4, "its sampling factors are not valid")
		samples, across, down = samples+h*v, max(across, h), max(down, v)
	}
	w.setSize(int(binary.BigEndian.Uint16(segment[3:])), int(binary.BigEndian.Uint16(segment[1:])))
	// One byte per sample, and a 32-bit coefficient with progressive coding.
	w.decoded = float64(samples) / float64(across*down)
	if marker == 0xc2 {
		w.decoded *= 5
	}
	w.gray = segment[5] == 1
	w.converted = w.converted || segment[6] == 'R' // components R, G and B
	w.misleading = w.misleading || segment[5] == 4 // CMYK
}

// appSegment returns an application segment, nil without content.
func appSegment(marker byte, content []byte) []byte {
	if content == nil {
		return nil
	}
	size := uint16(2 + len(content)) // #nosec G115 -- at most 0xffff
	return append(binary.BigEndian.AppendUint16([]byte{0xff, marker}, size), content...)
}

// jpegKept returns what stays of an application segment: a color profile, the orientation.
func (w *walker) jpegKept(marker byte, segment []byte) []byte {
	is := func(m byte, id string) bool { return marker == m && bytes.HasPrefix(segment, []byte(id)) }
	switch {
	case is(0xe0, "JFIF\x00") && len(segment) >= 14:
		return append(segment[:12:12], 0, 0)
	case is(0xe0, "JFIF\x00"):
		return segment
	case is(0xe2, iccHeader):
		if profile := w.keepProfile(segment[len(iccHeader):]); profile != nil {
			return slices.Concat([]byte(iccHeader), profile)
		}
	case is(0xe2, iccHeader[:len(iccHeader)-2]): // a part of a large profile
		w.misleading = true
		return segment
	case is(0xee, "Adobe"):
		w.converted = w.converted || len(segment) >= 12 && segment[11] == 0 // not YCbCr
		return segment[:min(len(segment), 12)]
	case is(0xe1, exifHeader) && w.pixels == 0: // browsers ignore a later one
		return w.keepOrientation(segment)
	}
	return nil
}

// withoutSamsungTrailer replaces the trailer of Samsung cameras by EOI, which may be missing before
// it. The trailer ends with "SEFH", version, number of entries, entries, length, "SEFT". An entry
// is 2 bytes, type, distance from "SEFH" back to the content, size.
func withoutSamsungTrailer(data []byte) []byte {
	if !bytes.HasSuffix(data, []byte("SEFT")) {
		return data
	}
	directory, content := bytes.LastIndex(data, []byte("SEFH")), 0
	for entry := directory + 12; entry+20 <= len(data); entry += 12 {
		content = max(content, littleEndian(data[entry+4:entry+8]))
	}
	if content > directory-2 { // also if the directory is missing
		return data
	}
	return append(data[:directory-content:directory-content], 0xff, 0xd9)
}

// gif walks blocks up to the trailer (GIF89a, sections 12 to 27).
func (w *walker) gif() {
	screen := w.take(0, 13)
	w.width, w.height = littleEndian(screen[6:8]), littleEndian(screen[8:10])
	w.decoded = 1 // an index into the palette
	i := 13 + gifColors(screen[10])
	for ended := false; i < len(w.data) && !ended; {
		start := i
		switch kind := w.data[i]; kind {
		case 0x00: // padding
			i++
			w.replace(start, i)
		case 0x21: // extension: label, sub-blocks
			i = w.gifBlocks(i + 2)
			w.replace(start, i, gifKept(w.data[start:i])...)
		case 0x2c: // frame: position, size, flags, color table, code size, sub-blocks
			frame := w.take(i+1, 9)
			if w.pixels == 0 { // browsers enlarge the screen for the first frame
				left, top := littleEndian(frame[:2]), littleEndian(frame[2:4])
				w.setSize(max(w.width, left+littleEndian(frame[4:6])), max(w.height, top+littleEndian(frame[6:8])))
			}
			blocks := i + 10 + gifColors(frame[8]) + 1
			i = w.gifBlocks(blocks)
			w.pixels += i - blocks - 1 // without the terminator
		default: // the trailer, or after a frame what browsers take for it
			w.require(kind == 0x3b || w.pixels > 0, "it has a block of unknown type %#02x", kind)
			ended = true
		}
	}
	w.end(i, 0x3b)
}

// gifColors returns the size in bytes of the color table that a packed field announces.
func gifColors(packed byte) int {
	if packed&0x80 == 0 {
		return 0
	}
	return 3 * (2 << (packed & 7)) // three bytes a color
}

// gifBlocks returns the end of the sub-blocks at i and their terminator (sections 15, 16).
func (w *walker) gifBlocks(i int) int {
	for {
		n := int(w.take(i, 1)[0])
		i += 1 + n
		if n == 0 {
			return i
		}
	}
}

// gifKept returns what stays of an extension: delay, transparent color (section 23), loops.
func gifKept(block []byte) []byte {
	is := func(start string) bool { return bytes.HasPrefix(block, []byte(start)) }
	switch {
	case is("!\xf9") && block[2] >= 4:
		return append([]byte("!\xf9\x04"), block[3], block[4], block[5], block[6], 0)
	case is("!\xff\x0bNETSCAPE2.0\x03\x01"), is("!\xff\x0bANIMEXTS1.0\x03\x01"):
		return append(block[:18:18], 0)
	}
	return nil
}

// webpFlags are the chunks that VP8X announces (RFC 9649, section 2.7).
var webpFlags = map[string]byte{"ANIM": 0x02, "EXIF": 0x08, "ICCP": 0x20}

// webp walks a RIFF file (RFC 9649, section 2.3). What is removed changes its size and flags.
func (w *walker) webp() {
	w.data = w.take(0, 8+littleEndian(w.data[4:8]))
	kept := w.webpChunks(12)
	clean := w.clean()
	head := slices.Clone(clean[:21])
	binary.LittleEndian.PutUint32(head[4:], uint32(len(clean)-8)) // #nosec G115 -- fits memory
	if string(head[12:16]) == "VP8X" {
		head[20] &= kept | 0x10 // of transparency
	}
	if !bytes.HasPrefix(clean, head) {
		w.out, w.done = append(head, clean[21:]...), len(w.data)
	}
}

// webpChunks walks chunks: type, length, body, padding. It returns the flags of those that stay.
func (w *walker) webpChunks(i int) (flags byte) {
	for len(w.data)-i >= 8 {
		kind, n := string(w.data[i:i+4]), littleEndian(w.data[i+4:i+8])
		body := w.take(i+8, n)
		next := min(i+8+n+n%2, len(w.data)) // the last chunk may lack its padding
		announced := w.flags&webpFlags[kind] != 0
		var kept []byte
		switch {
		case kind == "VP8X" && i == 12:
			w.require(n == 10, "its canvas is not valid")
			w.flags = body[0]
			w.setSize(1+littleEndian(body[4:7]), 1+littleEndian(body[7:]))
			kept = body
		case kind == "EXIF" && announced:
			kept = w.keepOrientation(body)
		case kind == "ANMF":
			w.require(flags&webpFlags["ANIM"] != 0, "it has a frame and no header of an animation")
			frame := walker{mediaType: w.mediaType, data: body}
			head := frame.take(0, 16)
			frame.width, frame.height = 1+littleEndian(head[6:9]), 1+littleEndian(head[9:12])
			right, bottom := 2*littleEndian(head[:3])+frame.width, 2*littleEndian(head[3:6])+frame.height
			w.require(right <= w.width && bottom <= w.height, "a frame is outside its canvas")
			frame.webpChunks(16)
			kept = frame.clean()
			w.pixels += n
		case w.pixels > 0: // nothing else follows an image or a frame
		case kind == "VP8 ", kind == "VP8L":
			w.webpImage(kind, body)
			kept = body
		case kind == "ANIM" && announced && n >= 6:
			kept = body[:6]
		case kind == "ICCP" && announced:
			kept = w.keepProfile(body)
		case kind == "ALPH" && w.width > 0: // not in a simple file
			w.decoded, w.trees = 8, true // decoded as VP8L
			kept = body
		}
		if kept == nil {
			w.replace(i, next)
		} else {
			flags |= webpFlags[kind]
			size := uint32(len(kept)) // #nosec G115 -- fits memory
			w.replace(i+4, i+8, binary.LittleEndian.AppendUint32(nil, size)...)
			w.replace(i+8, i+8+n, kept...)
			w.replace(i+8+n, next, make([]byte, min(len(kept)%2, next-i-8-n))...)
		}
		i = next
	}
	w.end(i)
	return flags
}

// webpImage reads an image's header: VP8 (RFC 6386, section 9.1) or VP8L (RFC 9649, section 3.4).
func (w *walker) webpImage(kind string, body []byte) {
	w.require(w.flags&webpFlags["ANIM"] == 0, "it has the flag of an animation and a single image")
	var width, height int
	switch {
	case kind == "VP8 " && len(body) > 10 && string(body[3:6]) == "\x9d\x01\x2a" &&
		body[0]&0x11 == 0x10 && // a visible key frame
		littleEndian(body[:3])>>5 <= len(body)-10: // with its first partition
		width, height = littleEndian(body[6:8])&0x3fff, littleEndian(body[8:10])&0x3fff
		w.decoded += 1.5
	case kind == "VP8L" && len(body) > 5 && body[0] == 0x2f && body[4]>>5 == 0:
		bits := littleEndian(body[1:5])
		width, height = 1+(bits&0x3fff), 1+(bits>>14&0x3fff)
		w.decoded += 7 // 4 bytes, once more with a palette, and transforms
		w.trees = true
	}
	valid := width > 0 && (w.width == 0 || width == w.width && height == w.height)
	w.require(valid, "the header of its image is not valid, or not of the size of its canvas")
	w.setSize(width, height)
	w.pixels += len(body)
}
