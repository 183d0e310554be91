package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"runtime/debug"
	"time"

	"golang.org/x/image/webp"
)

const (
	// maxPixels bounds width × height; a GIF's frames count together.
	maxPixels = 40_000_000

	// decodeBudget bounds what all images being decoded at one time take in
	// memory. The costliest image allowed fits: a progressive JPEG of 40
	// megapixels in four components, at 24 bytes a pixel.
	decodeBudget = 960_000_000

	// decodeWait is how long an image waits for its share of the budget.
	decodeWait = 5 * time.Second
)

// An imageFormat is one that avatars may have.
type imageFormat struct {
	mediaType string
	magic     string // '?' stands for any byte
	config    func(io.Reader) (image.Config, error)
	decode    func(io.Reader) error
	cost      func(config image.Config, data []byte) (pixels, memory int64, err error)
}

var imageFormats = []imageFormat{
	{"image/png", "\x89PNG\r\n\x1a\n", png.DecodeConfig, decodes(png.Decode), costPNG},
	{"image/jpeg", "\xff\xd8\xff", jpeg.DecodeConfig, decodes(jpeg.Decode), costJPEG},
	{"image/gif", "GIF8?a", gif.DecodeConfig, decodes(gif.DecodeAll), costGIF},
	{"image/webp", "RIFF????WEBP", webp.DecodeConfig, decodes(webp.Decode), costWebP},
}

func decodes[T any](decode func(io.Reader) (T, error)) func(io.Reader) error {
	return func(r io.Reader) error {
		_, err := decode(r)
		return err
	}
}

// inspectImage decides by the content's header alone whether data may be an
// image that may be an avatar, of which format, and what decoding it costs.
func inspectImage(data []byte) (f imageFormat, cost int64, err error) {
	if len(data) == 0 {
		return f, 0, badField("avatar", "the image is empty")
	}
	f, ok := sniffImage(data)
	if !ok {
		return f, 0, unsupported("avatar must be a PNG, JPEG, GIF or WebP image; the content sent is none of them")
	}
	config, err := f.config(bytes.NewReader(data))
	if err != nil {
		return f, 0, f.broken(err)
	}
	if config.Width <= 0 || config.Height <= 0 {
		return f, 0, badField("avatar", "the image has no pixels (%d × %d)", config.Width, config.Height)
	}
	// Checked before cost is asked: a product of two 32-bit sides fits an int64.
	if n := int64(config.Width) * int64(config.Height); n > maxPixels {
		return f, 0, tooLarge("avatar may have at most %d pixels; %d × %d is %d", maxPixels, config.Width, config.Height, n)
	}
	pixels, memory, err := f.cost(config, data)
	if err != nil {
		return f, 0, f.broken(err)
	}
	if pixels > maxPixels {
		return f, 0, tooLarge("avatar may have at most %d pixels in all its frames; it has %d", maxPixels, pixels)
	}
	return f, memory, nil
}

// broken says that what begins like an image of the format is none.
func (f imageFormat) broken(err error) error {
	return badField("avatar", "the content begins like %s but does not decode: %v", f.mediaType, err)
}

// decodeImage decodes all of an image that has been inspected, since only that
// tells a whole image from a broken one or from a script with an image's first
// bytes.
func (s *server) decodeImage(ctx context.Context, f imageFormat, cost int64, data []byte) error {
	wait, cancel := context.WithTimeout(ctx, decodeWait)
	defer cancel()
	if err := s.decodes.Acquire(wait, cost); err != nil {
		return overloaded("too many large images are being checked at once")
	}
	defer s.decodes.Release(cost) // even if the decoder panics
	err := f.decode(bytes.NewReader(data))
	if cost > decodeBudget/4 {
		// The next image of this size must find the room that this one took; the
		// collector would let both stand side by side for a while.
		debug.FreeOSMemory()
	}
	if err != nil {
		return f.broken(err)
	}
	return nil
}

// sniffImage finds the format whose magic number data begins with.
func sniffImage(data []byte) (imageFormat, bool) {
	for _, f := range imageFormats {
		if len(data) >= len(f.magic) && matches(f.magic, data) {
			return f, true
		}
	}
	return imageFormat{}, false
}

func matches(magic string, data []byte) bool {
	for i := range len(magic) {
		if magic[i] != '?' && magic[i] != data[i] {
			return false
		}
	}
	return true
}

// costPNG: up to 8 bytes a pixel with 16 bits a channel, 4 otherwise, and all
// of it twice when the image is interlaced, whose passes are images too.
func costPNG(c image.Config, data []byte) (pixels, memory int64, err error) {
	perPixel := int64(4)
	switch c.ColorModel {
	case color.NRGBA64Model, color.RGBA64Model, color.Gray16Model:
		perPixel = 8
	}
	// IHDR is the first chunk: its last byte says whether Adam7 is used.
	if len(data) > 28 && data[28] == 1 {
		perPixel *= 2
	}
	pixels = int64(c.Width) * int64(c.Height)
	return pixels, pixels * perPixel, nil
}

// costJPEG: a byte a component and pixel, and for a progressive image four
// bytes more, since all coefficients are kept until the last scan. CMYK and RGB
// are converted into another image at the end.
func costJPEG(c image.Config, data []byte) (pixels, memory int64, err error) {
	var perPixel int64
	switch c.ColorModel {
	case color.GrayModel:
		perPixel = 1
	case color.CMYKModel:
		perPixel = 4
	default:
		perPixel = 3
	}
	components := perPixel
	if c.ColorModel != color.GrayModel {
		perPixel += 4
	}
	progressive, scans, err := jpegFrame(data)
	if progressive {
		perPixel += 4 * components
	}
	if err == nil && scans > maxScans {
		err = fmt.Errorf("%d scans are more than %d", scans, maxScans)
	}
	pixels = int64(c.Width) * int64(c.Height)
	return pixels, pixels * perPixel, err
}

// maxScans bounds the passes over a JPEG's pixels. Encoders make about ten; but a
// pass that changes nothing is 80 bytes long and takes a tenth of a second at 40
// megapixels, so that five megabytes of them would take two hours.
const maxScans = 64

// jpegFrame walks the marker segments up to the end of the image (ITU T.81,
// section B.1.1) and reports whether its frame is progressive (SOF2), and of how
// many scans it is.
func jpegFrame(data []byte) (progressive bool, scans int, err error) {
	err = errors.New("no frame header")
	for i := 2; i+4 <= len(data); {
		if data[i] != 0xff {
			i++ // as decoders do, step over stray bytes between segments
			continue
		}
		marker := data[i+1]
		switch {
		case marker == 0xff: // fill byte
			i++
			continue
		case marker == 0xd9: // end of the image
			return progressive, scans, err
		case marker == 0x00 || marker == 0x01 || marker >= 0xd0 && marker <= 0xd8: // no length follows
			i += 2
			continue
		case marker >= 0xc0 && marker <= 0xc2:
			progressive, err = marker == 0xc2, nil
		case marker == 0xda:
			scans++
		}
		i += 2 + int(binary.BigEndian.Uint16(data[i+2:]))
	}
	return progressive, scans, err
}

const (
	// gifFramePixels is what a GIF's frame counts as at least. A frame of one
	// pixel takes 23 bytes of the file, but a color table in memory.
	gifFramePixels = 64 * 64

	// gifFrameBytes is what decoding keeps of a frame beside its pixels: 256
	// colors of 20 bytes, and what describes it.
	gifFrameBytes = 8 << 10
)

// costGIF adds up the frames without decompressing any: a byte a pixel each,
// since decoding holds them all.
func costGIF(_ image.Config, data []byte) (pixels, memory int64, err error) {
	tooShort := io.ErrUnexpectedEOF
	if len(data) < 13 {
		return 0, 0, tooShort
	}
	i := 13 + colorTable(data[10])
	skipSubBlocks := func() {
		for i < len(data) && data[i] != 0 {
			i += 1 + int(data[i])
		}
		i++
	}
	// A GIF without a frame is nothing to show, and is refused when decoded.
	for i < len(data) {
		switch data[i] {
		case 0x21: // extension: label, sub-blocks
			i += 2
			skipSubBlocks()
		case 0x2c: // image descriptor, color table, LZW code size, sub-blocks
			if i+10 > len(data) {
				return 0, 0, tooShort
			}
			width := int64(binary.LittleEndian.Uint16(data[i+5:]))
			height := int64(binary.LittleEndian.Uint16(data[i+7:]))
			pixels += max(width*height, gifFramePixels)
			memory += width*height + gifFrameBytes
			i += 10 + colorTable(data[i+9]) + 1
			skipSubBlocks()
		case 0x3b: // trailer
			return pixels, memory, nil
		default:
			return 0, 0, fmt.Errorf("unknown block type 0x%02x", data[i])
		}
	}
	return 0, 0, tooShort
}

// colorTable is the size in bytes of the table that a GIF's packed field
// announces.
func colorTable(packed byte) int {
	if packed&0x80 == 0 {
		return 0
	}
	return 3 << (packed&7 + 1)
}

// costWebP: a lossless image is held twice while its transforms are undone, and
// so is the transparency of a lossy one, beside it. The decoder stops at the last
// pixel, so it is here that a file shorter than its RIFF header says is found out.
func costWebP(c image.Config, data []byte) (pixels, memory int64, err error) {
	if size := binary.LittleEndian.Uint32(data[4:]); int64(size) > int64(len(data)-8) {
		return 0, 0, io.ErrUnexpectedEOF
	}
	pixels = int64(c.Width) * int64(c.Height)
	memory = pixels * 11
	if !bytes.HasPrefix(data[12:], []byte("VP8 ")) {
		// Huffman trees, up to 256 bytes of them for each that describes them, and
		// 52 kB for each of the 2,600 groups that the decoder takes at most.
		memory += min(256*int64(len(data)), 2600*52_000)
	}
	return pixels, memory, nil
}
