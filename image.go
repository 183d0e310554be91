package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
)

const (
	// maxPixels bounds width × height of the canvas.
	maxPixels = 40_000_000

	// maxSide is the largest side of a JPEG or GIF, and the limit for every format.
	maxSide = 65_535

	// maxGrowth bounds how much longer than its original a cleaned image is: a missing
	// end is added, and an unusually short orientation is written in full.
	maxGrowth = 64
)

// An imageFormat is identified by the first bytes of an image.
type imageFormat struct {
	name  string
	magic string // '?' matches any byte

	// walk checks the structure of an image and returns the image without metadata.
	// It never decodes pixels. Formats without it are not accepted.
	walk      func(data []byte) (clean []byte, info imageInfo, err error)
	mediaType string
}

// An imageInfo is what the structure of an image says about its pixels.
type imageInfo struct {
	width, height int
	orientation   byte // EXIF: 2 to 8 if the image must be turned
	animated      bool
	scans         int     // JPEG
	decoded       float64 // bytes a pixel that Go's decoder takes at most
}

const avif, heic = "an AVIF image", "a HEIC image"

var imageFormats = []imageFormat{
	{"PNG", "\x89PNG\r\n\x1a\n", walkPNG, "image/png"},
	{"JPEG", "\xff\xd8\xff", walkJPEG, "image/jpeg"},
	{"GIF", "GIF8?a", func(data []byte) ([]byte, imageInfo, error) { return walkGIF(data, math.MaxInt) }, "image/gif"},
	{"WebP", "RIFF????WEBP", walkWebP, "image/webp"},

	{name: avif, magic: "????ftypavi"},
	{name: heic, magic: "????ftyphe"},
	{name: heic, magic: "????ftypm?f1"},
	{name: "a video", magic: "????ftyp"},
	{name: "a JPEG XL image", magic: "\xff\x0a"},
	{name: "a JPEG XL image", magic: "\x00\x00\x00\x0cJXL "},
	{name: "a JPEG 2000 image", magic: "\x00\x00\x00\x0cjP  "},
	{name: "a TIFF or raw image", magic: "II*\x00"},
	{name: "a TIFF or raw image", magic: "MM\x00*"},
	{name: "a BMP image", magic: "BM????\x00\x00\x00\x00"},
	{name: "an icon (ICO)", magic: "\x00\x00\x01\x00"},
	{name: "a Photoshop document", magic: "8BPS"},
	{name: "a PDF document", magic: "%PDF-"},
}

// imageFormatOf returns the format of data. Its errors are problems for the client.
func imageFormatOf(data []byte) (imageFormat, error) {
	const convert = "convert it to PNG, JPEG, GIF or WebP"
	if len(data) == 0 {
		return imageFormat{}, badField("avatar", "the image is empty")
	}
	if i := slices.IndexFunc(imageFormats, func(f imageFormat) bool { return hasMagic(data, f.magic) }); i >= 0 {
		f := imageFormats[i]
		if f.walk != nil {
			return f, nil
		}
		// An AVIF file may name its own brand after a generic one.
		if f.name == heic && bytes.Contains(data[:min(len(data), 64)], []byte("avif")) {
			f.name = avif
		}
		return imageFormat{}, unsupported("avatar is %s, which is not accepted; %s", f.name, convert)
	}
	// Text has no magic number. A document may start with space, comments and a prolog.
	text := strings.ToLower(strings.TrimLeft(string(data[:min(len(data), 1024)]), "\ufeff \t\r\n\f"))
	switch {
	case strings.HasPrefix(text, "<") && strings.Contains(text, "<svg"):
		return imageFormat{}, unsupported("avatar is an SVG image, which may contain scripts; %s", convert)
	case strings.HasPrefix(text, "<!doctype html"), strings.HasPrefix(text, "<") && strings.Contains(text, "<html"):
		return imageFormat{}, unsupported("avatar is an HTML page, not an image; send the image itself")
	}
	return imageFormat{}, unsupported("avatar must be a PNG, JPEG, GIF or WebP image; the content sent is none of them")
}

func hasMagic(data []byte, magic string) bool {
	if len(data) < len(magic) {
		return false
	}
	for i := range len(magic) {
		if magic[i] != '?' && magic[i] != data[i] {
			return false
		}
	}
	return true
}

// cleanImage checks the structure of an image and returns the image without metadata,
// and its media type. With nothing to remove, it returns data itself. Errors are
// problems for the client. Time is linear; clean is at most maxGrowth bytes longer than data.
func cleanImage(data []byte) (clean []byte, mediaType string, err error) {
	format, err := imageFormatOf(data)
	if err != nil {
		return nil, "", err
	}
	clean, _, err = format.walk(data)
	if _, ok := errors.AsType[*problem](err); err != nil && !ok {
		err = badField("avatar", "the %s image is broken: %v; save it again, or send the whole file", format.name, err)
	}
	if err != nil {
		return nil, "", err
	}
	return clean, format.mediaType, nil
}

var (
	errTruncated = errors.New("it is truncated")
	errNoPixels  = errors.New("it has no image data")
)

// checkSize is for the canvas of an image, as its header describes it.
func checkSize(width, height int) error {
	switch {
	case width == 0 || height == 0:
		return badField("avatar", "the image has no pixels (%d × %d)", width, height)
	case width > maxSide || height > maxSide:
		return tooLarge("avatar may have at most %d pixels a side; it has %d × %d: make it smaller", maxSide, width, height)
	case width*height > maxPixels:
		return tooLarge("avatar may have at most %d pixels; %d × %d is %d: make it smaller", maxPixels, width, height, width*height)
	}
	return nil
}

// An edit replaces parts of data, from its beginning to its end. What is not replaced stays.
type edit struct {
	data []byte
	out  []byte // data[:done] as edited; nil while nothing has changed
	done int
}

func (e *edit) replace(from, to int, with ...byte) {
	if bytes.Equal(e.data[from:to], with) {
		return
	}
	if e.out == nil {
		e.out = make([]byte, 0, len(e.data)+maxGrowth)
	}
	e.out = append(append(e.out, e.data[e.done:from]...), with...)
	e.done = to
}

// end replaces everything after from, and returns the result.
func (e *edit) end(from int, with ...byte) []byte {
	e.replace(from, len(e.data), with...)
	if e.out == nil {
		return e.data
	}
	return append(e.out, e.data[e.done:]...)
}

// exifHeader precedes EXIF data in a JPEG.
const exifHeader = "Exif\x00\x00"

// orientationOf returns the orientation (1 to 8) in the first directory of EXIF data,
// or 1, which is upright (TIFF 6.0, section 2; EXIF 2.32, section 4.6.4).
func orientationOf(exif []byte) byte {
	const tag, short = 0x0112, 3
	var order binary.ByteOrder = binary.BigEndian
	switch {
	case len(exif) < 8:
		return 1
	case string(exif[:4]) == "II*\x00":
		order = binary.LittleEndian
	case string(exif[:4]) != "MM\x00*":
		return 1
	}
	at := int(order.Uint32(exif[4:]))
	if at < 8 || at > len(exif)-2 {
		return 1
	}
	count, entries := order.Uint16(exif[at:]), exif[at+2:]
	for range min(int(count), len(entries)/12) {
		if order.Uint16(entries) == tag {
			if value := order.Uint16(entries[8:]); order.Uint16(entries[2:]) == short && value >= 2 && value <= 8 {
				return byte(value)
			}
			return 1
		}
		entries = entries[12:]
	}
	return 1
}

// exifOrientation is the shortest EXIF data with an orientation: a header and one
// directory of one entry.
func exifOrientation(o byte) []byte {
	return []byte("MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00" + string(rune(o)) + "\x00\x00\x00\x00\x00\x00")
}
