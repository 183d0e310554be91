package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

const (
	maxPixels = 40_000_000 // width × height of the canvas
	maxSide   = 65_535     // the limit of JPEG and GIF
	maxGrowth = 64         // a cleaned image is at most that much longer: a missing end is added

	exifHeader = "Exif\x00\x00" // precedes EXIF data in a JPEG
)

// An imageFormat is identified by the first bytes of an image.
type imageFormat struct {
	name, magic string // '?' matches any byte
	mediaType   string
	walk        func(*walker) // nil if the format is not accepted
}

var imageFormats = []imageFormat{
	{"PNG", "\x89PNG\r\n\x1a\n", "image/png", (*walker).png},
	{"JPEG", "\xff\xd8\xff", "image/jpeg", (*walker).jpeg},
	{"GIF", "GIF8?a", "image/gif", (*walker).gif},
	{"WebP", "RIFF????WEBP", "image/webp", (*walker).webp},

	{name: "an AVIF image", magic: "????ftypavi"},
	{name: "an AVIF image", magic: "????ftypm?f1????avif"},
	{name: "an AVIF image", magic: "????ftypm?f1????????avif"},
	{name: "a HEIC image", magic: "????ftypm?f1"},
	{name: "a HEIC image", magic: "????ftyphe"},
	{name: "a video", magic: "????ftyp"},
	{name: "a JPEG XL image", magic: "\xff\x0a"},
	{name: "a JPEG XL image", magic: "\x00\x00\x00\x0cJXL "},
	{name: "a TIFF or raw image", magic: "II*\x00"},
	{name: "a TIFF or raw image", magic: "MM\x00*"},
	{name: "a BMP image", magic: "BM????\x00\x00\x00\x00"},
	{name: "an icon (ICO)", magic: "\x00\x00\x01\x00"},
	{name: "a PDF document", magic: "%PDF-"},
}

// imageFormatOf returns the format of data. Its errors are problems for the client.
func imageFormatOf(data []byte) (imageFormat, error) {
	const convert = "convert it to PNG, JPEG, GIF or WebP"
	if len(data) == 0 {
		return imageFormat{}, badField("avatar", "the image is empty")
	}
	for _, f := range imageFormats {
		switch {
		case !hasMagic(data, f.magic):
		case f.walk == nil:
			return f, unsupported("avatar is %s, which is not accepted; %s", f.name, convert)
		default:
			return f, nil
		}
	}
	// Text has no magic number. A document may start with space, comments and a prolog.
	text := strings.ToLower(strings.TrimLeft(string(data[:min(len(data), 1024)]), "\ufeff \t\r\n\f"))
	switch markup := strings.HasPrefix(text, "<"); {
	case markup && strings.Contains(text, "<svg"):
		return imageFormat{}, unsupported("avatar is an SVG image, which may contain scripts; %s", convert)
	case markup && strings.Contains(text, "html"):
		return imageFormat{}, unsupported("avatar is an HTML page, not an image; send the image itself")
	}
	return imageFormat{}, unsupported("avatar must be a PNG, JPEG, GIF or WebP image; the content sent is none of them")
}

func hasMagic(data []byte, magic string) bool {
	for i := range len(magic) {
		if i == len(data) || magic[i] != '?' && magic[i] != data[i] {
			return false
		}
	}
	return true
}

// cleanImage checks the structure of an image and returns the image without metadata,
// and its media type. With nothing to remove, it returns data itself. Errors are
// problems for the client. Time is linear; clean is at most maxGrowth bytes longer than data.
func cleanImage(data []byte) (clean []byte, mediaType string, err error) {
	w := walker{data: data}
	if err := w.run(); err != nil {
		return nil, "", err
	}
	return w.clean(), w.mediaType, nil
}

// A walker reads the structure of an image from its beginning to its end, and replaces
// parts of it. It never decodes pixels. What it finds wrong ends the walk.
type walker struct {
	imageFormat
	data []byte
	out  []byte // data[:done] after replacements; nil while nothing has changed
	done int

	firstFrame    bool // end a GIF after its first frame
	width, height int
	orientation   byte    // EXIF: 0 if missing, 1 if upright, 2 to 8 if the image must be turned
	flags         byte    // WebP: of VP8X
	scans         int     // JPEG
	decoded       float64 // bytes per pixel that Go's decoder allocates at most
}

// run walks the image. Errors are problems for the client.
func (w *walker) run() (err error) {
	if w.imageFormat, err = imageFormatOf(w.data); err != nil {
		return err
	}
	defer func() {
		if fault := recover(); fault != nil {
			err = fault.(*problem) // from refuse; panics again for any other
		}
	}()
	w.walk(w)
	return nil
}

// refuse ends the walk by a panic that run recovers, so that walks need no error handling.
func (w *walker) refuse(p *problem) { panic(p) }

// require refuses the image unless ok. The message says what is wrong with "it".
func (w *walker) require(ok bool, format string, args ...any) {
	if !ok {
		fault := fmt.Sprintf(format, args...)
		w.refuse(badField("avatar", "the %s image is broken: %s; save it again, or send the whole file", w.name, fault))
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
	switch {
	case width == 0 || height == 0:
		w.refuse(badField("avatar", "the image has no pixels (%d × %d)", width, height))
	case width > maxSide || height > maxSide || width*height > maxPixels:
		w.refuse(tooLarge("avatar may have at most %d pixels, and %d a side; it has %d × %d: make it smaller",
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
func (w *walker) end(at int, hasPixels bool, with ...byte) {
	w.require(hasPixels, "it has no image data")
	w.replace(at, len(w.data), with...)
}

// clean returns data after all replacements.
func (w *walker) clean() []byte {
	if w.out == nil {
		return w.data
	}
	return append(w.out, w.data[w.done:]...)
}

// keepOrientation returns the shortest EXIF data with the same orientation: a header and
// a directory of one entry. It returns nil if the image is upright, and for all EXIF data
// but the first.
func (w *walker) keepOrientation(exif []byte) []byte {
	if w.orientation != 0 {
		return nil
	}
	w.orientation = orientationOf(exif)
	if w.orientation == 1 {
		return nil
	}
	return append([]byte("MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"), w.orientation, 0, 0, 0, 0, 0, 0)
}

// orientationOf returns the orientation (1 to 8) in the first directory of EXIF data,
// or 1, which is upright (TIFF 6.0, section 2; EXIF 2.32, section 4.6.4).
func orientationOf(exif []byte) byte {
	number := bigEndian
	if bytes.HasPrefix(exif, []byte("II")) {
		number = littleEndian
	}
	if len(exif) < 8 || number(exif[2:4]) != 42 || number(exif[4:8]) > len(exif)-2 {
		return 1
	}
	directory := exif[number(exif[4:8]):]
	for i := range min(number(directory[:2]), (len(directory)-2)/12) {
		entry := directory[2+12*i:]
		tag, kind, value := number(entry[:2]), number(entry[2:4]), number(entry[8:10])
		if tag == 0x0112 && kind == 3 && value >= 1 && value <= 8 {
			return byte(value)
		}
	}
	return 1
}

// bigEndian returns the number in all of b.
func bigEndian(b []byte) (n int) {
	for _, c := range b {
		n = n<<8 | int(c)
	}
	return n
}

// littleEndian returns the number in all of b.
func littleEndian(b []byte) (n int) {
	for i, c := range b {
		n |= int(c) << (8 * i)
	}
	return n
}

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
	chunk := append(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), kind...), body...) // #nosec G115 -- a chunk of a body that fits memory
	return binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
}

// png walks chunks: length, type, body, CRC (section 5.3).
func (w *walker) png() {
	seen := map[string]bool{}
	previous := ""
	for i := 8; ; {
		// Browsers show an image whose last chunk is missing, cut or wrong.
		if rest := w.data[i:]; bytes.HasPrefix(pngEnd, rest) || len(rest) >= 8 && string(rest[4:8]) == "IEND" {
			w.end(i, seen["IDAT"], pngEnd...)
			return
		}
		n := bigEndian(w.take(i, 4))
		chunk := w.take(i, 12+n)
		kind, body := string(chunk[4:8]), chunk[8:8+n]
		repeats, keep := pngKept[kind]
		keep = keep && (repeats || !seen[kind])
		intact := crc32.ChecksumIEEE(chunk[4:8+n]) == binary.BigEndian.Uint32(chunk[8+n:])
		if kind[0]&0x20 == 0 { // critical (section 5.4)
			w.require(keep, "its critical chunk %q is unknown or repeated", kind)
			w.require(intact, "the CRC of its chunk %s is wrong", kind) // section 13.2
		}
		w.require((kind == "IHDR") == (i == 8), "its first chunk is not IHDR")
		w.require(kind != "IDAT" || !seen["IDAT"] || previous == "IDAT", "its IDAT chunks are not consecutive") // section 5.6
		kept := chunk
		switch {
		case !keep, !intact, kind == "fcTL" && !seen["acTL"], kind == "fdAT" && !seen["fcTL"]:
			kept = nil
		case kind == "IHDR":
			w.pngHeader(body)
		case kind == "eXIf":
			if kept = w.keepOrientation(body); kept != nil {
				kept = pngChunk("eXIf", kept)
			}
		}
		w.replace(i, i+len(chunk), kept...)
		if kept != nil && (kind != "IDAT" || n > 0) {
			seen[kind] = true
		}
		previous, i = kind, i+len(chunk)
	}
}

func (w *walker) pngHeader(body []byte) {
	valid := len(body) == 13 && strings.Contains(pngDepths[body[9]], string(body[8:9])) && body[10] == 0 && body[11] == 0 && body[12] <= 1
	w.require(valid, "its header is not valid")
	w.setSize(bigEndian(body[:4]), bigEndian(body[4:8]))
	// 4 channels of 8 or 16 bits; each pass of an interlaced image is an image too.
	w.decoded = float64(max(8, body[8]) / 8 * 4 * (1 + body[12]))
}

// jpeg walks marker segments, and scans up to the next marker (ITU T.81, section B.1.1).
// Between segments it skips stray bytes, as browsers do.
func (w *walker) jpeg() {
	if n := samsungTrailer(w.data); n > 0 { // EOI may be missing before it
		w.data = append(w.data[:len(w.data)-n:len(w.data)-n], 0xff, 0xd9)
	}
	inScan, pixels := false, 0 // pixels counts bytes of scans
	for i := 2; ; {
		start := w.jpegMarker(i)
		if inScan {
			pixels += start - i
		} else {
			w.replace(i, start)
		}
		marker := w.take(start, 2)[1]
		if marker == 0xd9 { // EOI
			w.end(start, pixels > 0, 0xff, 0xd9)
			return
		}
		n := max(2, bigEndian(w.take(start+2, 2))) // browsers take less for an empty segment
		segment, end := w.take(start+2, n)[2:], start+2+n
		switch marker {
		case 0xc4, 0xdb, 0xdd: // DHT, DQT, DRI
		case 0xfe, 0xdc, 0xcc: // COM; DNL and DAC, which browsers ignore
			w.replace(start, end)
		case 0xc0, 0xc1, 0xc2: // SOF
			w.jpegFrame(segment, marker == 0xc2)
		case 0xda: // SOS (section B.2.3)
			w.require(w.width != 0 && len(segment) >= 6 && len(segment) == 4+2*int(segment[0]), "its scan header is not valid")
			w.scans++
		case 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf:
			w.refuse(unsupported("avatar is a lossless, hierarchical or arithmetic-coded JPEG, which not all browsers show; " +
				"save it as a baseline or progressive JPEG"))
		default:
			w.require(marker&0xf0 == 0xe0, "its marker %02X is unknown or out of place", marker)
			if kept := w.jpegKept(marker, segment); kept != nil {
				w.replace(start+2, end, append(binary.BigEndian.AppendUint16(nil, uint16(2+len(kept))), kept...)...) // #nosec G115 -- an EXIF segment of a few bytes
			} else {
				w.replace(start, end)
			}
		}
		inScan, i = marker == 0xda, end
	}
}

// jpegMarker returns the position of the next marker, or len(data). Stuffed zeros, fill
// bytes, RST and TEM belong to the data before it.
func (w *walker) jpegMarker(i int) int {
	for {
		at := bytes.IndexByte(w.data[i:], 0xff)
		i += at + 1
		if at < 0 || i == len(w.data) {
			return len(w.data)
		}
		if c := w.data[i]; c > 0x01 && c != 0xff && (c < 0xd0 || c > 0xd7) {
			return i - 1
		}
	}
}

// jpegFrame reads a frame header (section B.2.2): bits per sample, height, width, number of
// components, and for each its id, sampling factors and table.
func (w *walker) jpegFrame(segment []byte, progressive bool) {
	w.require(w.width == 0 && len(segment) >= 9 && len(segment) == 6+3*int(segment[5]), "its frame header is not valid or repeated")
	if segment[0] != 8 || segment[5] > 4 {
		w.refuse(unsupported("avatar is a JPEG of %d bits and %d components, which browsers do not show; "+
			"save it with 8 bits, in color or gray", segment[0], segment[5]))
	}
	var samples, across, down byte
	for component := range slices.Chunk(segment[6:], 3) {
		h, v := component[1]>>4, component[1]&15
		w.require(h >= 1 && h <= 4 && v >= 1 && v <= 4, "its sampling factors are not valid")
		samples, across, down = samples+h*v, max(across, h), max(down, v)
	}
	w.setSize(bigEndian(segment[3:5]), bigEndian(segment[1:3]))
	// One byte per sample, and a 32-bit coefficient with progressive coding. Then the
	// image may be converted into RGB or CMYK.
	w.decoded = float64(samples) / float64(across*down)
	if progressive {
		w.decoded *= 5
	}
	w.decoded += 4
}

// jpegKept returns what stays of an application segment: all of a color profile (ICC.1,
// annex B.4), JFIF and Adobe segments without a thumbnail, and the orientation.
func (w *walker) jpegKept(marker byte, segment []byte) []byte {
	is := func(m byte, id string) bool { return marker == m && bytes.HasPrefix(segment, []byte(id)) }
	switch {
	case is(0xe0, "JFIF\x00") && len(segment) >= 14:
		return append(segment[:12:12], 0, 0)
	case is(0xe0, "JFIF\x00"), is(0xe2, "ICC_PROFILE\x00"):
		return segment
	case is(0xee, "Adobe"):
		return segment[:min(len(segment), 12)]
	case is(0xe1, exifHeader):
		if exif := w.keepOrientation(segment[len(exifHeader):]); exif != nil {
			return append([]byte(exifHeader), exif...)
		}
	}
	return nil
}

// samsungTrailer returns the length of the trailer that Samsung cameras append, sometimes
// in place of EOI. It ends with a directory: "SEFH", version, number of entries, entries (2
// bytes, type, distance from the directory back to the content, size), length, "SEFT".
func samsungTrailer(data []byte) int {
	if !bytes.HasSuffix(data, []byte("SEFT")) {
		return 0
	}
	directory, content := bytes.LastIndex(data, []byte("SEFH")), 0
	for entry := directory + 12; entry+20 <= len(data); entry += 12 {
		content = max(content, littleEndian(data[entry+4:entry+8]))
	}
	if content > directory-2 { // also if the directory is missing
		return 0
	}
	return len(data) - directory + content
}

// gif walks blocks up to the trailer (GIF89a, sections 12 to 27).
func (w *walker) gif() {
	screen := w.take(0, 13)
	w.width, w.height = littleEndian(screen[6:8]), littleEndian(screen[8:10])
	w.decoded = 1 + 4      // an index into the palette; and the frame on its screen
	frames, pixels := 0, 0 // pixels counts bytes of sub-blocks
	i, ended := 13+gifColors(screen[10]), false
	for i < len(w.data) && !ended {
		start := i
		switch kind := w.data[i]; {
		case kind == 0x00: // padding
			i++
			w.replace(start, i)
		case kind == 0x21: // extension: label, sub-blocks
			i = w.gifBlocks(i + 2)
			w.replace(start, i, gifKept(w.data[start:i])...)
		case kind == 0x2c: // frame: position, size, flags, color table, code size, sub-blocks
			frame := w.take(i+1, 9)
			if frames == 0 { // browsers enlarge the screen for it
				left, top := littleEndian(frame[:2]), littleEndian(frame[2:4])
				w.setSize(max(w.width, left+littleEndian(frame[4:6])), max(w.height, top+littleEndian(frame[6:8])))
			}
			blocks := i + 10 + gifColors(frame[8]) + 1
			i = w.gifBlocks(blocks)
			pixels += i - blocks - 1
			frames++
			ended = w.firstFrame
		default: // the trailer, or after a frame what browsers take for it
			w.require(kind == 0x3b || frames > 0, "it has a block of the unknown type %#02x", kind)
			ended = true
		}
	}
	w.end(i, pixels > 0, 0x3b)
}

// gifColors returns the size in bytes of the color table that a packed field announces.
func gifColors(packed byte) int {
	return int(packed>>7) * 3 << (packed&7 + 1)
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

// gifKept returns what stays of an extension block: the delay and the transparent color
// (section 23), the number of loops, and a color profile. The rest is text or metadata.
func gifKept(block []byte) []byte {
	is := func(start string) bool { return bytes.HasPrefix(block, []byte(start)) }
	switch {
	case is("!\xf9") && block[2] >= 4:
		return append([]byte("!\xf9\x04"), block[3], block[4], block[5], block[6], 0)
	case is("!\xff\x0bNETSCAPE2.0\x03\x01"), is("!\xff\x0bANIMEXTS1.0\x03\x01"):
		return append(block[:18:18], 0)
	case is("!\xff\x0bICCRGBG1012"):
		return block
	}
	return nil
}

// webpFlags are the chunks that VP8X announces (RFC 9649, section 2.7).
var webpFlags = map[string]byte{"ANIM": 0x02, "XMP ": 0x04, "EXIF": 0x08, "ICCP": 0x20}

// webp walks a RIFF file: an image, or in the extended format a VP8X chunk with flags and
// the canvas, then an image or frames (RFC 9649, sections 2.3 to 2.7).
func (w *walker) webp() {
	size := littleEndian(w.data[4:8])
	w.require(size >= 12 && size%2 == 0, "its size is not valid")
	w.data = w.take(0, 8+size)
	w.decoded = 11 // of lossy colors with lossless transparency
	i := 12
	kind := string(w.data[12:16])
	w.require(kind == "VP8X" || kind == "VP8 " || kind == "VP8L", "its first chunk is %q", kind)
	if kind == "VP8X" {
		canvas := w.take(16, 14)
		w.require(littleEndian(canvas[:4]) == 10, "its canvas is not valid")
		w.flags = canvas[4] & 0x3e
		w.setSize(1+littleEndian(canvas[8:11]), 1+littleEndian(canvas[11:14]))
		i = 30
	}
	seen := w.webpChunks(i)
	for kind, flag := range webpFlags {
		if !seen[kind] {
			w.flags &^= flag
		}
	}
	clean := w.clean()
	head := append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(clean)-8)), "WEBP"...) // #nosec G115 -- an image that fits memory
	if kind == "VP8X" {
		head = append(head, 'V', 'P', '8', 'X', 10, 0, 0, 0, w.flags, 0, 0, 0)
	}
	if !bytes.HasPrefix(clean, head) {
		w.out, w.done = append(head, clean[len(head):]...), len(w.data)
	}
}

// webpChunks walks the chunks of a file or a frame: type, length, body, padding to an
// even length. It returns the types of those that stay.
func (w *walker) webpChunks(i int) (seen map[string]bool) {
	seen = map[string]bool{}
	for len(w.data)-i >= 8 {
		kind, n := string(w.data[i:i+4]), littleEndian(w.data[i+4:i+8])
		body := w.take(i+8, n)
		next := min(i+8+n+n%2, len(w.data)) // the last chunk of a frame may lack its padding
		kept := w.webpKept(kind, body, seen)
		switch {
		case kept == nil:
			w.replace(i, next)
		case !bytes.Equal(kept, body):
			chunk := append(binary.LittleEndian.AppendUint32([]byte(kind), uint32(len(kept))), kept...) // #nosec G115 -- an EXIF chunk of a few bytes
			w.replace(i, next, append(chunk, make([]byte, len(kept)%2)...)...)
		}
		if kept != nil {
			seen[kind] = true
		}
		i = next
	}
	w.end(i, seen["VP8 "] || seen["VP8L"] || seen["ANMF"])
	return seen
}

// webpKept returns what stays of a chunk's body, after the chunks that are seen.
func (w *walker) webpKept(kind string, body []byte, seen map[string]bool) []byte {
	image := seen["VP8 "] || seen["VP8L"]
	announced := w.flags&webpFlags[kind] != 0
	switch {
	case image && (kind == "ALPH" || kind == "VP8 " || kind == "VP8L"), seen[kind] && kind != "ANMF":
	case kind == "VP8 ", kind == "VP8L":
		w.webpImage(kind, body)
		return body
	case kind == "ANMF":
		w.require(seen["ANIM"], "it has a frame and no header of an animation")
		return w.webpFrame(body)
	case kind == "ANIM" && announced && len(body) >= 6:
		return body[:6]
	case kind == "ICCP" && announced, kind == "ALPH":
		return body
	case kind == "EXIF" && announced:
		return w.keepOrientation(bytes.TrimPrefix(body, []byte(exifHeader)))
	}
	return nil
}

// webpFrame returns a frame of an animation with nothing but its image.
func (w *walker) webpFrame(body []byte) []byte {
	w.require(len(body) >= 16, "it is truncated")
	left, top := 2*littleEndian(body[:3]), 2*littleEndian(body[3:6])
	width, height := 1+littleEndian(body[6:9]), 1+littleEndian(body[9:12])
	w.require(left+width <= w.width && top+height <= w.height, "a frame is outside its canvas")
	frame := walker{imageFormat: w.imageFormat, data: body, width: width, height: height}
	frame.webpChunks(16)
	return frame.clean()
}

// webpImage reads the size of an image from its first bytes: the frame header of VP8 (RFC
// 6386, section 9.1), or the header of lossless WebP (RFC 9649, section 3.4).
func (w *walker) webpImage(kind string, body []byte) {
	w.require(w.flags&webpFlags["ANIM"] == 0, "it has the flag of an animation and a single image")
	width, height := 0, 0
	switch {
	case kind == "VP8 " && len(body) > 10 && string(body[3:6]) == "\x9d\x01\x2a" && body[0]&0x11 == 0x10: // a visible key frame
		w.require(littleEndian(body[:3])>>5 <= len(body)-10, "it is truncated")
		width, height = littleEndian(body[6:8])&0x3fff, littleEndian(body[8:10])&0x3fff
	case kind == "VP8L" && len(body) > 5 && body[0] == 0x2f && body[4]>>5 == 0:
		bits := littleEndian(body[1:5])
		width, height = 1+bits&0x3fff, 1+bits>>14&0x3fff
	}
	w.require(width > 0, "its image has no valid header")
	w.require(w.width == 0 || width == w.width && height == w.height, "an image of %d × %d is not of the size of its canvas", width, height)
	w.setSize(width, height)
}
