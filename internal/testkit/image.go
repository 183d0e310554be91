package testkit

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"mime/multipart"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Files are images, and what may pass for one, by name. Some of them are in dir,
// which is testdata at the root.
func Files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{
		"ada2.png":         PNG(Gradient(64, 64, 2)),
		"ada.jpg":          JPEG(Gradient(64, 64, 3)),
		"ada.gif":          GIF(16, 16, 3),
		"empty":            {},
		"note.txt":         []byte("This is no image.\n"),
		"logo.svg":         []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>`),
		"script.gif":       []byte("GIF89a<script>alert(document.domain)</script>"),
		"small-script.gif": []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00<script>alert(document.domain)</script>"),
		"page.png":         append([]byte("\x89PNG\r\n\x1a\n"), "<html><script>alert(1)</script></html>"...),
		"huge.png":         PNGClaiming(60000, 60000),
		"too-large.png":    append(PNG(Gradient(64, 64, 1)), make([]byte, 5<<20)...),
	}
	for _, name := range []string{"ada.png", "ada.webp", "lossless.webp", "animated.webp"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	files["truncated.png"] = files["ada.png"][:len(files["ada.png"])-40]
	files["truncated.jpg"] = files["ada.jpg"][:len(files["ada.jpg"])/2]
	files["truncated.gif"] = files["ada.gif"][:len(files["ada.gif"])-20]
	files["truncated.webp"] = files["ada.webp"][:len(files["ada.webp"])-40]
	return files
}

// Gradient draws an image that is not the same for two seeds.
func Gradient(width, height, seed int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.Set(x, y, color.NRGBA{uint8(x * seed), uint8(y * 3), uint8(x ^ y), 255})
		}
	}
	return img
}

// PNG encodes an image.
func PNG(img image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// JPEG encodes an image.
func JPEG(img image.Image) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// GIF is an animation.
func GIF(width, height, frames int) []byte {
	g := &gif.GIF{}
	for i := range frames {
		frame := image.NewPaletted(image.Rect(0, 0, width, height), color.Palette{color.Black, color.White})
		for j := range frame.Pix {
			frame.Pix[j] = uint8((i + j) % 2)
		}
		g.Image, g.Delay = append(g.Image, frame), append(g.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Form makes a form of fields, and of an image unless it is nil.
func Form(image []byte, fields url.Values) (contentType string, body []byte) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, values := range fields {
		for _, value := range values {
			w.WriteField(name, value)
		}
	}
	if image != nil {
		part, _ := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {`form-data; name="avatar"; filename="me"`},
			"Content-Type":        {"application/octet-stream"},
		})
		part.Write(image)
	}
	w.Close()
	return w.FormDataContentType(), b.Bytes()
}

// PNGChunk is a chunk of a PNG, with its checksum.
func PNGChunk(name string, data []byte) []byte {
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	chunk = append(append(chunk, name...), data...)
	return binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
}

// PadPNG gives a PNG a background color, which stays, of so many bytes that the file has size bytes.
func PadPNG(png []byte, size int) []byte {
	const header = 8 + 25 // signature and IHDR
	background := PNGChunk("bKGD", make([]byte, size-len(png)-12))
	return slices.Concat(png[:header], background, png[header:])
}

// PNGClaiming is a PNG of a few bytes whose header claims these dimensions.
func PNGClaiming(width, height uint32) []byte {
	header := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	header = append(binary.BigEndian.AppendUint32(header, height), 8, 6, 0, 0, 0)
	data := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), header...)
	data = binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(header))
	return append(data, "\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e\x00\x00\x00\x00IEND\xaeB`\x82"...)
}

// GIFClaiming is a GIF with frames that claim these dimensions and have no data.
func GIFClaiming(width, height uint16, frames int) []byte {
	data := binary.LittleEndian.AppendUint16([]byte("GIF89a"), width)
	data = append(binary.LittleEndian.AppendUint16(data, height), 0x80, 0, 0, 0, 0, 0, 255, 255, 255)
	for range frames {
		data = binary.LittleEndian.AppendUint16(append(data, 0x2c, 0, 0, 0, 0), width)
		data = append(binary.LittleEndian.AppendUint16(data, height), 0, 2, 1, 0x44, 0)
	}
	return append(data, 0x3b)
}

// JPEGClaiming is a JPEG whose header claims these dimensions.
func JPEGClaiming(width, height uint16) []byte {
	data := binary.BigEndian.AppendUint16([]byte("\xff\xd8\xff\xc2\x00\x11\x08"), height)
	data = binary.BigEndian.AppendUint16(data, width)
	return append(data, "\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9"...)
}

// WebPClaiming is a WebP whose header claims these dimensions.
func WebPClaiming(width, height uint16) []byte {
	data := []byte("RIFF\x1e\x00\x00\x00WEBPVP8 \x12\x00\x00\x00\x10\x01\x00\x9d\x01\x2a")
	data = binary.LittleEndian.AppendUint16(data, width)
	return append(binary.LittleEndian.AppendUint16(data, height), make([]byte, 8)...)
}

// PNGGrayAlpha is a PNG of gray with transparency, which Go does not write: brighter to the right, clearer to the
// bottom.
func PNGGrayAlpha(width, height int) []byte {
	var rows bytes.Buffer
	w := zlib.NewWriter(&rows)
	for y := range height {
		row := []byte{0}
		for x := range width {
			row = append(row, uint8(255*x/width), uint8(255*(height-y)/height))
		}
		w.Write(row)
	}
	w.Close()
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(width)), uint32(height))
	return slices.Concat([]byte("\x89PNG\r\n\x1a\n"), PNGChunk("IHDR", append(header, 8, 4, 0, 0, 0)),
		PNGChunk("IDAT", rows.Bytes()), PNGChunk("IEND", nil))
}
