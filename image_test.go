package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sync/semaphore"
)

func imageServer() *server {
	return &server{decodes: semaphore.NewWeighted(decodeBudget)}
}

func TestCheckImage(t *testing.T) {
	images := testImages(t)
	for _, test := range []struct {
		file   string
		want   string // media type
		status int    // of the problem
	}{
		{"ada.png", "image/png", 0},
		{"ada.jpg", "image/jpeg", 0},
		{"ada.gif", "image/gif", 0},
		{"ada.webp", "image/webp", 0},
		{"lossless.webp", "image/webp", 0},
		{"empty", "", http.StatusBadRequest},
		{"note.txt", "", http.StatusUnsupportedMediaType},
		{"logo.svg", "", http.StatusUnsupportedMediaType},
		{"script.gif", "", http.StatusRequestEntityTooLarge}, // "<script>" as dimensions
		{"small-script.gif", "", http.StatusBadRequest},
		{"animated.webp", "", http.StatusBadRequest},
		{"page.png", "", http.StatusBadRequest},
		{"huge.png", "", http.StatusRequestEntityTooLarge},
		{"truncated.png", "", http.StatusBadRequest},
		{"truncated.jpg", "", http.StatusBadRequest},
		{"truncated.gif", "", http.StatusBadRequest},
		{"truncated.webp", "", http.StatusBadRequest},
	} {
		t.Run(test.file, func(t *testing.T) {
			got, err := imageServer().checkImage(t.Context(), images[test.file])
			status := 0
			if err != nil {
				status = problemOf(err).Status
			}
			if got != test.want || status != test.status {
				t.Errorf("got %q, %d (%v), want %q, %d", got, status, err, test.want, test.status)
			}
		})
	}
}

// TestCheckImageEveryTruncation: no part of an image passes for the whole.
func TestCheckImageEveryTruncation(t *testing.T) {
	images := testImages(t)
	for _, file := range []string{"ada.png", "ada.jpg", "ada.gif", "ada.webp", "lossless.webp"} {
		data := images[file]
		s := imageServer()
		for n := 1; n < 24 && n < len(data); n++ { // the last bytes, where decoders may be lenient
			if _, err := s.checkImage(t.Context(), data[:len(data)-n]); err == nil {
				t.Errorf("%s without its last %d bytes passes", file, n)
			}
		}
		for range 50 {
			n := rand.IntN(len(data) * 9 / 10)
			if _, err := s.checkImage(t.Context(), data[:n]); err == nil {
				t.Errorf("%s cut at %d of %d bytes passes", file, n, len(data))
			}
		}
	}
}

// TestCheckImageClaims: an image that claims to be huge costs nothing, since no
// pixel of it is decoded.
func TestCheckImageClaims(t *testing.T) {
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"PNG", pngClaiming(60000, 60000)},
		{"GIF", gifClaiming(65535, 65535, 1)},
		{"GIF, many frames", gifClaiming(6000, 6000, 1000)},
		{"JPEG", jpegClaiming(65500, 65500)},
		{"WebP", webpClaiming(16383, 16383)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := imageServer().checkImage(t.Context(), test.data)
			runtime.ReadMemStats(&after)
			if status := problemOf(err).Status; err == nil || status != http.StatusRequestEntityTooLarge {
				t.Errorf("got %d (%v), want 413", status, err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("it allocated %d bytes", n)
			}
		})
	}
}

// TestDecodeBudget: images wait for each other rather than for memory, and one
// that waits in vain is refused so that the client can try again.
func TestDecodeBudget(t *testing.T) {
	s := imageServer()
	s.decodes.Acquire(t.Context(), decodeBudget-100)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.checkImage(ctx, testImages(t)["ada.png"])
	if p, ok := errors.AsType[*problem](err); !ok || p.Status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" {
		t.Errorf("got %v, want 503 with Retry-After", err)
	}
	s.decodes.Release(decodeBudget - 100)
	if _, err := s.checkImage(t.Context(), testImages(t)["ada.png"]); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if !s.decodes.TryAcquire(decodeBudget) {
		t.Error("the budget was not given back")
	}
}

// TestDecodeCost holds the estimates that the budget works with against what
// decoding really allocates.
func TestDecodeCost(t *testing.T) {
	const side = 1500
	noise := gradient(side, side, 7)
	deep := image.NewNRGBA64(noise.Rect)
	gray := image.NewGray(noise.Rect)
	for i := range deep.Pix {
		deep.Pix[i] = uint8(i * 31)
	}
	for i := range gray.Pix {
		gray.Pix[i] = uint8(i * 7)
	}
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"PNG", encodePNG(noise)},
		{"PNG, 16 bits", encodePNG(deep)},
		{"PNG, gray", encodePNG(gray)},
		{"JPEG", encodeJPEG(noise)},
		{"JPEG, gray", encodeJPEG(gray)},
		{"GIF", encodeGIF(side, side, 4)},
		{"JPEG, progressive", must(os.ReadFile("testdata/progressive.jpg"))},
		{"JPEG, progressive CMYK", must(os.ReadFile("testdata/progressive-cmyk.jpg"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, _ := sniffImage(test.data)
			config, err := f.config(bytes.NewReader(test.data))
			if err != nil {
				t.Fatal(err)
			}
			_, budget, err := f.cost(config, test.data)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := f.decode(bytes.NewReader(test.data)); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			got := int64(after.TotalAlloc - before.TotalAlloc)
			if got > budget+budget/10+1<<20 {
				t.Errorf("decoding allocates %d bytes, the estimate is %d", got, budget)
			}
		})
	}
}

func FuzzCheckImage(f *testing.F) {
	for _, data := range testImages(f) {
		if len(data) < 1<<20 {
			f.Add(data)
		}
	}
	f.Add(jpegClaiming(100, 100))
	f.Add(gifClaiming(10, 10, 3))
	s := imageServer()
	f.Fuzz(func(t *testing.T, data []byte) {
		mediaType, err := s.checkImage(t.Context(), data)
		if (err == nil) != (mediaType != "") {
			t.Errorf("media type %q, error %v", mediaType, err)
		}
		if err != nil && problemOf(err).Status >= 500 {
			t.Errorf("the client's mistake is answered with %d: %v", problemOf(err).Status, err)
		}
		if !s.decodes.TryAcquire(decodeBudget) {
			t.Fatal("the budget was not given back")
		}
		s.decodes.Release(decodeBudget)
	})
}

// pngClaiming is a PNG of a few bytes whose header claims these dimensions.
func pngClaiming(width, height uint32) []byte {
	header := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	header = append(binary.BigEndian.AppendUint32(header, height), 8, 6, 0, 0, 0)
	data := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), header...)
	data = binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(header))
	return append(data, "\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e\x00\x00\x00\x00IEND\xaeB`\x82"...)
}

// gifClaiming is a GIF with frames that claim these dimensions and have no data.
func gifClaiming(width, height uint16, frames int) []byte {
	data := binary.LittleEndian.AppendUint16([]byte("GIF89a"), width)
	data = append(binary.LittleEndian.AppendUint16(data, height), 0x80, 0, 0, 0, 0, 0, 255, 255, 255)
	for range frames {
		data = binary.LittleEndian.AppendUint16(append(data, 0x2c, 0, 0, 0, 0), width)
		data = append(binary.LittleEndian.AppendUint16(data, height), 0, 2, 1, 0x44, 0)
	}
	return append(data, 0x3b)
}

func jpegClaiming(width, height uint16) []byte {
	data := binary.BigEndian.AppendUint16([]byte("\xff\xd8\xff\xc2\x00\x11\x08"), height)
	data = binary.BigEndian.AppendUint16(data, width)
	return append(data, "\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9"...)
}

func webpClaiming(width, height uint16) []byte {
	data := []byte("RIFF\x1e\x00\x00\x00WEBPVP8 \x12\x00\x00\x00\x30\x01\x00\x9d\x01\x2a")
	data = binary.LittleEndian.AppendUint16(data, width)
	return append(binary.LittleEndian.AppendUint16(data, height), make([]byte, 8)...)
}

// checkImage inspects and decodes, as putImage does.
func (s *server) checkImage(ctx context.Context, data []byte) (mediaType string, err error) {
	f, cost, err := inspectImage(data)
	if err != nil {
		return "", err
	}
	if err := s.decodeImage(ctx, f, cost, data); err != nil {
		return "", err
	}
	return f.mediaType, nil
}

// TestImageBombs: small files that take far more memory or time than their
// pixels do are refused, or are charged for it.
func TestImageBombs(t *testing.T) {
	t.Run("GIF of very many frames", func(t *testing.T) {
		_, _, err := inspectImage(gifOfDots(maxPixels/gifFramePixels + 1))
		if err == nil || problemOf(err).Status != http.StatusRequestEntityTooLarge {
			t.Errorf("got %v, want 413", err)
		}
	})
	t.Run("JPEG of very many scans", func(t *testing.T) {
		if _, err := imageServer().checkImage(t.Context(), jpegOfScans(8, maxScans)); err != nil {
			t.Errorf("%d scans: %v", maxScans, err)
		}
		_, _, err := inspectImage(jpegOfScans(8, maxScans+1))
		if err == nil || problemOf(err).Status != http.StatusBadRequest {
			t.Errorf("got %v, want 400", err)
		}
	})
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"GIF, color tables", gifOfDots(2000)},
		{"WebP, Huffman trees", webpOfTrees(900)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, cost, err := inspectImage(test.data)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := f.decode(bytes.NewReader(test.data)); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			// What the decoder lets go of on its way counts here too, and is more
			// than half of it.
			if got := int64(after.TotalAlloc - before.TotalAlloc); got > 4*cost {
				t.Errorf("decoding %d bytes allocates %d, the estimate is %d", len(test.data), got, cost)
			}
		})
	}
}

// TestDecodePanic: a decoder that panics gives its share of the budget back.
func TestDecodePanic(t *testing.T) {
	s := imageServer()
	func() {
		defer func() { recover() }()
		s.decodeImage(t.Context(), imageFormat{decode: func(io.Reader) error { panic("fault in a decoder") }}, 100, nil)
	}()
	if !s.decodes.TryAcquire(decodeBudget) {
		t.Error("the budget was not given back")
	}
}

// gifOfDots is a GIF with frames of one pixel, one of whose colors is
// transparent: the decoder copies the color table for each.
func gifOfDots(frames int) []byte {
	data := append([]byte("GIF89a\x01\x00\x01\x00\xf7\x00\x00"), make([]byte, 3*256)...)
	for range frames {
		data = append(data, "\x21\xf9\x04\x01\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"...)
	}
	return append(data, 0x3b)
}

// jpegOfScans is a gray progressive JPEG of side × side pixels (up to 64, or a
// multiple of 1024) in this many scans, most of which say nothing.
func jpegOfScans(side uint16, scans int) []byte {
	data := append([]byte("\xff\xd8\xff\xdb\x00\x43\x00"), bytes.Repeat([]byte{1}, 64)...)
	data = binary.BigEndian.AppendUint16(append(data, "\xff\xc2\x00\x0b\x08"...), side)
	data = append(binary.BigEndian.AppendUint16(data, side), "\x01\x01\x11\x00"...)
	// Two codes of one bit: "no difference" for DC; for AC, a run of 2^14 blocks
	// (and 14 more bits say how many more) without coefficients.
	data = append(data, "\xff\xc4\x00\x14\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	data = append(data, "\xff\xc4\x00\x14\x10\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe0"...)
	blocks := (int(side) + 7) / 8 * ((int(side) + 7) / 8)
	data = append(data, "\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"...)
	data = append(data, make([]byte, (blocks+7)/8)...)
	for range scans - 1 {
		data = append(data, "\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"...)
		data = append(data, make([]byte, (blocks>>14+1)*15/8+1)...)
	}
	return append(data, "\xff\xd9"...)
}

// webpOfTrees is a lossless WebP of 128 × 128 pixels of one color, with this many
// groups of Huffman trees, all but the last as large as they can be.
func webpOfTrees(groups int) []byte {
	var data []byte
	var n int
	put := func(value, bits int) {
		for i := range bits {
			if n%8 == 0 {
				data = append(data, 0)
			}
			data[n/8] |= byte(value>>i&1) << (n % 8)
			n++
		}
	}
	single := func(symbol int) { put(1|symbol<<3|4, 11) } // a tree of one leaf
	// A code length, and its repetitions, by threes to sixes.
	repeat := func(code, bits, count int) {
		put(code, bits)
		for count--; count >= 6; count -= 6 {
			put(0|3<<1, 3)
		}
		if count >= 3 {
			put(0|(count-3)<<1, 3)
			count = 0
		}
		for range count {
			put(code, bits)
		}
	}
	lengths := func(of map[int]int) { // of the codes for code lengths
		put(0, 1)
		put(12, 4)
		for _, symbol := range []int{17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12} {
			put(of[symbol], 3)
		}
		put(0, 1)
	}
	put(0x2f, 8)
	put(127, 14)
	put(127, 14)
	put(0, 1+3+1)   // opaque, version 0, no transform
	put(1|11<<1, 5) // a color cache of 2^11
	put(1, 1+3)     // tiles of 4 × 4 have groups of their own, as an image says:
	put(0, 1)       // its pixels all stand for the last group
	for _, symbol := range []int{(groups - 1) & 0xff, (groups - 1) >> 8, 0, 0, 0} {
		single(symbol)
	}
	for range groups - 1 {
		lengths(map[int]int{16: 1, 11: 2, 12: 2})
		repeat(0b01, 2, 1768) // 1768/2^11 + 560/2^12 = 1
		repeat(0b11, 2, 560)
		for range 3 {
			lengths(map[int]int{16: 1, 8: 1})
			for range 256 {
				put(0, 1)
			}
		}
		single(0)
	}
	for range 5 {
		single(0)
	}
	data = append(data, make([]byte, len(data)%2)...)
	chunk := append(binary.LittleEndian.AppendUint32([]byte("WEBPVP8L"), uint32(len(data))), data...)
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(chunk))), chunk...)
}
