package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/image/webp"

	"roster/internal/testkit"
)

// secret is planted wherever metadata can be, and must not survive.
const secret = "51.5007N 0.1246W serial 4711-0815"

// TestCleanImageFiles: the files in testdata/images are accepted or refused as browsers do.
func TestCleanImageFiles(t *testing.T) {
	index := string(testkit.Must(os.ReadFile("testdata/images/INDEX.tsv")))
	for line := range strings.Lines(index) {
		field := strings.Split(strings.TrimSpace(line), "\t")
		if field[0] == "file" {
			continue
		}
		data := testkit.Must(os.ReadFile("testdata/images/" + field[0]))
		_, err := checkClean(t, field[0], data)
		status := http.StatusOK
		if err != nil {
			status = problemOf(err).Status
		}
		if want := field[1]; want != "either" && (status == http.StatusOK) != (want == "200") || status >= 500 {
			t.Errorf("%s: %d (%v), want %s", field[0], status, err, want)
		}
	}
}

// checkClean cleans an image and verifies what must hold for every image.
func checkClean(t testing.TB, name string, data []byte) (clean []byte, err error) {
	t.Helper()
	before := bytes.Clone(data)
	clean, mediaType, err := cleanImage(data)
	if !bytes.Equal(data, before) {
		t.Errorf("%s: cleaning changes the original", name)
	}
	if err != nil {
		if status := problemOf(err).Status; status < 400 || status >= 500 {
			t.Errorf("%s: %d for a client's mistake: %v", name, status, err)
		}
		return nil, err
	}
	most := len(data) + maxGrowth
	if bytes.Contains(data, []byte("iCCP")) {
		most += maxProfile // is no longer compressed
	}
	if len(clean) > most {
		t.Errorf("%s: %d bytes become %d", name, len(data), len(clean))
	}
	again, mediaType2, err := cleanImage(clean)
	if err != nil || mediaType2 != mediaType || len(again) == 0 || &again[0] != &clean[0] || len(again) != len(clean) {
		t.Errorf("%s: the cleaned image is cleaned again: %d bytes become %d (%v)", name, len(clean), len(again), err)
	}
	// Decoders of Go refuse more than browsers do: where they accept the original, they
	// must see the same in the cleaned image.
	want, err := decodeAll(data)
	// A Samsung directory decides where an image ends, even a wrong one. Go, unlike browsers,
	// takes JFXX for the end of JFIF, and so other colors.
	if err != nil || bytes.HasSuffix(data, []byte("SEFT")) || bytes.Contains(data, []byte("JFXX")) {
		return clean, nil
	}
	got, err := decodeAll(clean)
	if err != nil {
		t.Errorf("%s: the cleaned image does not decode: %v", name, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: the cleaned image has other pixels", name)
	}
	return clean, nil
}

// decodeAll decodes a small image, or all frames of a GIF.
func decodeAll(data []byte) (any, error) {
	config, format, err := image.DecodeConfig(bytes.NewReader(data))
	switch {
	case err != nil:
		return nil, err
	case config.Width*config.Height > 100_000:
		return nil, fmt.Errorf("too large to be decoded here")
	}
	r := bytes.NewReader(data)
	switch format {
	case "png":
		return png.Decode(r)
	case "jpeg":
		return jpeg.Decode(r)
	case "gif":
		return gif.DecodeAll(r)
	}
	return webp.Decode(r)
}

// TestCleanImageGoTestdata: the images that Go tests its decoders with.
func TestCleanImageGoTestdata(t *testing.T) {
	root := strings.TrimSpace(string(testkit.Must(exec.Command("go", "env", "GOROOT").Output())))
	module := strings.TrimSpace(string(testkit.Must(exec.Command("go", "list", "-m", "-f", "{{.Dir}}",
		"golang.org/x/image").Output())))
	accepted := []string{"image/png", "image/jpeg", "image/gif", "image/webp"}
	tried := 0
	for _, pattern := range []string{
		root + "/src/image/testdata/*", root + "/src/image/*/testdata/*", root + "/src/image/*/testdata/*/*", module +
			"/testdata/*",
	} {
		for _, file := range testkit.Must(filepath.Glob(pattern)) {
			data, err := os.ReadFile(file)
			if err != nil || !slices.Contains(accepted, http.DetectContentType(data)) {
				continue // a directory, text, TIFF
			}
			tried++
			if _, err := checkClean(t, filepath.Base(file), data); err != nil {
				if _, err2 := decodeAll(data); err2 == nil {
					t.Errorf("%s: Go decodes it, and it is refused: %v", file, err)
				}
			}
		}
	}
	if tried < 50 {
		t.Skipf("only %d images are there", tried)
	}
}

// exifWith is EXIF data with an orientation, a text, and a thumbnail in a second directory.
func exifWith(order binary.AppendByteOrder, orientation uint16) []byte {
	b := []byte("MM\x00*")
	if order == binary.AppendByteOrder(binary.LittleEndian) {
		b = []byte("II*\x00")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint32(order.AppendUint16(order.AppendUint16(b, 0x010f), 2), uint32(len(secret)))
	b = order.AppendUint32(b, 38)
	b = order.AppendUint32(order.AppendUint16(order.AppendUint16(b, 0x0112), 3), 1)
	b = order.AppendUint16(order.AppendUint16(b, orientation), 0)
	b = order.AppendUint32(b, 0)
	return append(append(b, secret...), "\xff\xd8\xff\xd9"...)
}

// exifOrientation is EXIF data with nothing but an orientation.
func exifOrientation(o byte) []byte {
	return append([]byte("MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"), o, 0, 0, 0, 0, 0, 0)
}

func jpegSegment(marker byte, parts ...string) []byte {
	body := strings.Join(parts, "")
	return append(binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(2+len(body))), body...)
}

func webpChunk(kind string, body []byte) []byte {
	chunk := append(binary.LittleEndian.AppendUint32([]byte(kind), uint32(len(body))), body...)
	return append(chunk, make([]byte, len(body)%2)...)
}

func webpFile(chunks ...[]byte) []byte {
	body := append([]byte("WEBP"), slices.Concat(chunks...)...)
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

// webpCanvas is a VP8X chunk.
func webpCanvas(flags byte, width, height int) []byte {
	return webpChunk("VP8X", []byte{flags, 0, 0, 0, byte(width - 1), byte((width - 1) >> 8), 0, byte(height - 1),
		byte((height - 1) >> 8), 0})
}

// gifBlock is an extension of one sub-block after its first.
func gifBlock(start, text string) []byte {
	return append(append([]byte(start), byte(len(text))), text+"\x00"...)
}

// plantedImages are images with metadata in every place, and the same without.
func plantedImages(t testing.TB) map[string][2][]byte {
	images := testkit.Files(t, "testdata")
	file := func(name string) []byte { return testkit.Must(os.ReadFile("testdata/images/" + name)) }
	exif := string(exifWith(binary.LittleEndian, 6))
	upright := string(exifWith(binary.BigEndian, 1))
	profile, cleanedProfile := plantedProfile()
	icc, cleanICC := string(profile), string(cleanedProfile)
	planted := map[string][2][]byte{}

	jpg, soi := images["ada.jpg"][2:], []byte("\xff\xd8") // starts with DQT
	rotated := jpegSegment(0xe1, exifHeader, string(exifOrientation(6)))
	jfif := jpegSegment(0xe0, "JFIF\x00\x01\x01\x01\x00\x48\x00\x48\x00\x00")
	adobe := jpegSegment(0xee, "Adobe\x00\x64\x00\x00\x00\x00\x01")
	iccSegment := jpegSegment(0xe2, "ICC_PROFILE\x00\x01\x01", cleanICC)
	planted["JPEG"] = [2][]byte{slices.Concat(soi,
		jpegSegment(0xe0, "JFIF\x00\x01\x01\x01\x00\x48\x00\x48\x0b\x01", secret),
		jpegSegment(0xe0, "JFXX\x00\x10", secret),
		jpegSegment(0xe1, exifHeader, exif),
		jpegSegment(0xe1, exifHeader, string(exifWith(binary.BigEndian, 3))),
		jpegSegment(0xe1, "http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta>", secret),
		jpegSegment(0xe2, "MPF\x00MM\x00*", secret),
		jpegSegment(0xe2, "ICC_PROFILE\x00\x01\x01", icc),
		jpegSegment(0xed, "Photoshop 3.0\x008BIM", secret),
		jpegSegment(0xeb, "JP", secret), // C2PA
		jpegSegment(0xee, "Adobe\x00\x64\x00\x00\x00\x00\x01", secret),
		jpegSegment(0xfe, secret),
		[]byte(secret), []byte("\xff\xff\xff"),
		jpg, []byte(secret), soi, jpg), // a second image, as in a motion photo
		slices.Concat(soi, jfif, rotated, iccSegment, adobe, jpg)}
	planted["JPEG, upright"] = [2][]byte{slices.Concat(soi, jpegSegment(0xe1, exifHeader, upright), jpg),
		slices.Concat(soi, jpg)}
	planted["JPEG, comment in a progressive"] = [2][]byte{nil, testkit.Must(os.ReadFile("testdata/progressive.jpg"))}
	progressive := planted["JPEG, comment in a progressive"][1]
	at := bytes.LastIndex(progressive, []byte("\xff\xda"))
	planted["JPEG, comment in a progressive"] = [2][]byte{slices.Concat(progressive[:at], jpegSegment(0xfe, secret),
		[]byte(secret+"\xff\xd0"+secret), progressive[at:]), progressive}

	// The directory: one entry of type 1, whose content begins that far before it.
	samsung := []byte(secret + "\xff\xd8\xff\xd9SEFH\x65\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x0a")
	samsung = binary.LittleEndian.AppendUint32(samsung, uint32(len(secret)+4))
	samsung = append(binary.LittleEndian.AppendUint32(samsung, uint32(len(secret)+4)), "\x18\x00\x00\x00SEFT"...)
	whole := slices.Concat(soi, jpg)
	planted["JPEG, Samsung"] = [2][]byte{slices.Concat(whole, samsung), whole}
	planted["JPEG, Samsung instead of the end"] = [2][]byte{slices.Concat(whole[:len(whole)-2], samsung), whole}

	pngImage := images["ada.png"]
	head, rest := pngImage[:33], pngImage[33:]
	planted["PNG"] = [2][]byte{slices.Concat(head,
		compressed(secret, profile), compressed(secret, profile), pngChunk("tEXt", []byte("GPS\x00"+secret)),
		pngChunk("iTXt", []byte(secret)), pngChunk("zTXt", []byte(secret)),
		pngChunk("eXIf", []byte(exif)), pngChunk("eXIf", []byte(exif)), pngChunk("tIME", []byte(secret)),
		pngChunk("caBX", []byte(secret)),
		pngChunk("prVt", []byte(secret)), pngChunk("fdAT", []byte(secret)),
		pngChunk("pHYs", []byte("\x00\x00\x0b\x13\x00\x00\x0b\x13\x01")),
		rest, []byte(secret)),
		slices.Concat(head, pngProfileChunk(cleanedProfile), pngChunk("eXIf", exifOrientation(6)),
			pngChunk("pHYs", []byte("\x00\x00\x0b\x13\x00\x00\x0b\x13\x01")), rest)}
	apng := file("png-apng.png")
	planted["APNG"] = [2][]byte{slices.Concat(apng[:33], pngChunk("eXIf", []byte(upright)), apng[33:len(apng)-12],
		pngChunk("tEXt", []byte(secret)), pngChunk("IEND", []byte(secret))), apng}

	anim := file("gif-anim.gif")
	at = 13 + gifColors(anim[10])
	planted["GIF"] = [2][]byte{slices.Concat(anim[:at],
		gifBlock("!\xfe", secret),
		gifBlock("!\xff\x0bXMP DataXMP", secret),
		gifBlock("!\xff\x01x", secret),
		gifBlock("!\x01\x0c123456789012", secret),
		gifBlock("!\xce", secret),
		anim[at:at+18], []byte{byte(len(secret))}, []byte(secret+"\x00"), // a second sub-block for NETSCAPE2.0
		[]byte("\x00\x00"), anim[at+19:], []byte(secret)), anim}

	simple := file("ok.webp")
	vp8 := simple[12:]
	planted["WebP, simple"] = [2][]byte{append(webpFile(vp8, webpChunk("EXIF", []byte(exif))), secret...), simple}
	planted["WebP"] = [2][]byte{
		webpFile(webpCanvas(0x2c, 96, 72), webpChunk("ICCP", []byte(icc)), webpChunk("odd ", []byte(secret+".")), vp8,
			webpChunk("EXIF", []byte(exif)), webpChunk("XMP ", []byte(secret))),
		webpFile(webpCanvas(0x28, 96, 72), webpChunk("ICCP", []byte(cleanICC)), vp8,
			webpChunk("EXIF", exifOrientation(6)))}
	planted["WebP, upright"] = [2][]byte{
		webpFile(webpCanvas(0x0c, 96, 72), vp8, webpChunk("EXIF", []byte(exifHeader+upright))),
		webpFile(webpCanvas(0, 96, 72), vp8)}
	frame := append([]byte{0, 0, 0, 0, 0, 0, 95, 0, 0, 71, 0, 0, 100, 0, 0, 0}, vp8...)
	animation := webpChunk("ANIM", make([]byte, 6))
	planted["WebP, animated"] = [2][]byte{
		webpFile(webpCanvas(0x02, 96, 72), animation, webpChunk("ANMF",
			slices.Concat(frame, webpChunk("odd ", []byte(secret)))), webpChunk("ANMF", frame)),
		webpFile(webpCanvas(0x02, 96, 72), animation, webpChunk("ANMF", frame), webpChunk("ANMF", frame))}
	return planted
}

// TestCleanImageMetadata: metadata goes, all else stays as it is.
func TestCleanImageMetadata(t *testing.T) {
	for name, images := range plantedImages(t) {
		t.Run(name, func(t *testing.T) {
			got, err := checkClean(t, name, images[0])
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(got, []byte(secret)) {
				t.Error("metadata has survived")
			}
			if !bytes.Equal(got, images[1]) {
				t.Errorf("%d bytes become %d, want %d\n got %.200q\nwant %.200q", len(images[0]), len(got),
					len(images[1]), got, images[1])
			}
			got, err = checkClean(t, name, images[1])
			if err != nil || &got[0] != &images[1][0] {
				t.Errorf("an image with nothing to remove is copied, or refused: %v", err)
			}
		})
	}
}

// TestCleanImageOrientation: of EXIF data of either byte order, only an orientation that
// turns the image stays.
func TestCleanImageOrientation(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for o := range uint16(11) {
			want := byte(o)
			if o < 1 || o > 8 {
				want = 1
			}
			exif := exifWith(order, o)
			w := walker{}
			got := w.keepOrientation(exif)
			if w.orientation != want || want == 1 && got != nil ||
				want > 1 && !bytes.Equal(got, exifOrientation(want)) {
				t.Errorf("%v, %d: %d, written as %q", order, o, w.orientation, got)
			}
			for n := range exif {
				new(walker).keepOrientation(exif[:n]) // must not panic
			}
		}
	}
}

// TestCleanImageRefused: what is not accepted is refused by its name.
func TestCleanImageRefused(t *testing.T) {
	images := testkit.Files(t, "testdata")
	vp8 := testkit.Must(os.ReadFile("testdata/images/ok.webp"))[12:]
	jpg := images["ada.jpg"]
	sof := bytes.Index(jpg, []byte("\xff\xc0"))
	patched := func(data []byte, at int, with string) []byte {
		return slices.Concat(data[:at], []byte(with), data[at+len(with):])
	}
	for _, test := range []struct {
		name   string
		data   []byte
		status int
		detail string
	}{
		{"empty", nil, 400, "empty"},
		{"text", images["note.txt"], 415, "text/plain"},
		{"HEIC", []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"), 415, "HEIC"},
		{"HEIF", []byte("\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic"), 415, "HEIC"},
		{"AVIF", []byte("\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif"), 415, "AVIF"},
		{"AVIF, generic", []byte("\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif"), 415, "AVIF"},
		{"MP4", []byte("\x00\x00\x00\x18ftypisom\x00\x00\x00\x00"), 415, "video"},
		{"JPEG XL", []byte("\xff\x0a\xfa\x1f\x01"), 415, "JPEG XL"},
		{"JPEG XL, container", []byte("\x00\x00\x00\x0cJXL \r\n\x87\n"), 415, "JPEG XL"},
		{"SVG", images["logo.svg"], 415, "SVG"},
		{"SVG, prolog", []byte("\ufeff <?xml version='1.0'?>\n<!-- a --><SVG>"), 415, "SVG"},
		{"TIFF", []byte("II*\x00\x08\x00\x00\x00"), 415, "TIFF"},
		{"TIFF, big-endian", []byte("MM\x00*\x00\x00\x00\x08"), 415, "TIFF"},
		{"BMP", []byte("BM\x36\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00"), 415, "image/bmp"},
		{"ICO", []byte("\x00\x00\x01\x00\x01\x00"), 415, "image/x-icon"},
		{"PDF", []byte("%PDF-1.7"), 415, "application/pdf"},
		{"HTML", []byte("<!DOCTYPE html><title>"), 415, "text/html"},
		{"HTML, no type", []byte("\n<!-- a --><html>"), 415, "text/html"},
		{"GIF that is a script", images["script.gif"], 400, "unknown type"},
		{"GIF, small script", images["small-script.gif"], 400, "unknown type"},
		{"GIF without frames", []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;"), 400, "no image data"},
		{"GIF header", []byte("GIF89a\x01\x00"), 400, "truncated"},
		{"PNG that is a page", images["page.png"], 400, "truncated"},
		{"PNG, huge", images["huge.png"], 413, "at most"},
		{"PNG, long", testkit.PNGClaiming(20_000_000, 2), 413, "a side"},
		{"PNG without IDAT", slices.Concat(images["ada.png"][:33], pngEnd), 400, "no image data"},
		{"PNG, wrong CRC", patched(images["ada.png"], 29, "0000"), 400, "CRC"},
		{"PNG, unknown critical chunk", slices.Concat(images["ada.png"][:33], pngChunk("CgBI", nil),
			images["ada.png"][33:]), 400, "CgBI"},
		{"PNG, 3 bits", slices.Concat(images["ada.png"][:8],
			pngChunk("IHDR", []byte("\x00\x00\x00\x01\x00\x00\x00\x01\x03\x02\x00\x00\x00")), images["ada.png"][33:]),
			400,
			"header"},
		{"GIF, huge", testkit.GIFClaiming(65535, 65535, 1), 413, "at most"},
		{"JPEG, huge", testkit.JPEGClaiming(65500, 65500), 413, "at most"},
		{"JPEG, arithmetic", patched(jpg, sof, "\xff\xc9"), 415, "arithmetic"},
		{"JPEG, lossless", patched(jpg, sof, "\xff\xc3"), 415, "lossless"},
		{"JPEG, 12 bits", patched(jpg, sof+4, "\x0c"), 415, "8-bit"},
		{"PNG of another compression", slices.Concat([]byte(pngSignature),
			pngChunk("IHDR", []byte{3: 1, 7: 1, 8: 8, 10: 1, 12: 0})), 400, "header is not valid"},
		{"JPEG without scans", []byte("\xff\xd8\xff\xd9"), 400, "no image data"},
		{"JPEG without data", testkit.JPEGClaiming(10, 10), 400, "no image data"},
		{"WebP, huge", testkit.WebPClaiming(16383, 16383), 413, "at most"},
		{"WebP, frame outside", webpFile(webpCanvas(2, 96, 70), webpChunk("ANIM", make([]byte, 6)), webpChunk("ANMF",
			append([]byte{0, 0, 0, 0, 0, 0, 95, 0, 0, 71, 0, 0, 100, 0, 0, 0}, vp8...))), 400, "outside"},
		{"WebP, flag of an animation", webpFile(webpCanvas(2, 96, 72), vp8), 400, "animation"},
		{"WebP, frame without a flag", webpFile(webpCanvas(0, 96, 72), webpChunk("ANMF", vp8)), 400, "animation"},
		{"WebP, no image", webpFile(webpCanvas(0, 96, 72)), 400, "no image data"},
		{"WebP, larger canvas", webpFile(webpCanvas(0, 97, 72), vp8), 400, "canvas"},
	} {
		_, err := checkClean(t, test.name, test.data)
		if err == nil {
			t.Errorf("%s: accepted", test.name)
		} else if p := problemOf(err); p.Status != test.status || !strings.Contains(p.Detail, test.detail) {
			t.Errorf("%s: %d %s, want %d and %q", test.name, p.Status, p.Detail, test.status, test.detail)
		}
	}
}

// TestCleanImageTruncated: a part of an image is refused, or lacks nothing but its end.
func TestCleanImageTruncated(t *testing.T) {
	images := testkit.Files(t, "testdata")
	images["ada.gif"] = testkit.GIF(16, 16, 1)
	whole := map[string]int{"ada.png": len(pngEnd), "ada.jpg": 0, "ada.gif": 1, "ada.webp": 1, "lossless.webp": 1}
	for file, spare := range whole {
		data := images[file]
		for n := range data {
			if _, err := checkClean(t, file, data[:n]); err == nil && n < len(data)-spare {
				t.Errorf("%s: %d of %d bytes are accepted", file, n, len(data))
			}
		}
	}
	for name, planted := range plantedImages(t) {
		for range 200 {
			checkClean(t, name, planted[0][:rand.IntN(len(planted[0]))])
		}
	}
}

// TestLateOrientation: browsers ignore EXIF data behind the pixels of a JPEG, so it does not stay.
func TestLateOrientation(t *testing.T) {
	jpg := testkit.Files(t, "testdata")["ada.jpg"]
	end := len(jpg) - 2
	exif := jpegSegment(0xe1, exifHeader+exifDirectory+"\x00\x06\x00\x00\x00\x00\x00\x00")
	clean, _, err := cleanImage(slices.Concat(jpg[:end], exif, jpg[end:]))
	wantError(t, err, nil)
	if bytes.Contains(clean, []byte(exifHeader)) {
		t.Error("JPEG: EXIF data behind the scan stays")
	}
}

// TestCleanImageTime: time is linear, whatever an image consists of.
func TestCleanImageTime(t *testing.T) {
	images := testkit.Files(t, "testdata")
	gif, jpg := images["ada.gif"], images["ada.jpg"]
	at := 13 + gifColors(gif[10])
	many := func(n int, part []byte) []byte { return bytes.Repeat(part, n) }
	// A profile whose tags all have its whole content, except the last one, which is broken.
	overlapping := make([]byte, maxProfile)
	copy(overlapping[36:], "acsp")
	binary.BigEndian.PutUint32(overlapping[128:], maxProfileTag)
	for i := range maxProfileTag {
		tag := overlapping[132+12*i:]
		copy(tag, "cprt")
		binary.BigEndian.PutUint32(tag[8:], uint32(maxProfile))
		if i == maxProfileTag-1 {
			binary.BigEndian.PutUint32(tag[4:], uint32(maxProfile))
		}
	}
	for name, build := range map[string]func(n int) []byte{
		"GIF of comments": func(n int) []byte {
			return slices.Concat(gif[:at], many(n, []byte("!\xfe\x01a\x00")),
				gif[at:])
		},
		"GIF of padding": func(n int) []byte { return slices.Concat(gif[:at], make([]byte, 5*n), gif[at:]) },
		"PNG of profiles": func(n int) []byte {
			chunk := compressed("bomb", overlapping)
			return slices.Concat(images["ada.png"][:33], many(5*n/len(chunk), chunk), images["ada.png"][33:])
		},
		"PNG of small chunks": func(n int) []byte {
			return slices.Concat(images["ada.png"][:33], many(n/2, pngChunk("teXt", nil)), images["ada.png"][33:])
		},
		"JPEG of comments": func(n int) []byte {
			return slices.Concat(jpg[:2], many(n, jpegSegment(0xfe, "a")),
				jpg[2:])
		},
		"JPEG of fill": func(n int) []byte { return slices.Concat(jpg[:2], many(5*n, []byte{0xff}), jpg[2:]) },
		"JPEG of stuffing": func(n int) []byte {
			return slices.Concat(jpg[:len(jpg)-2], many(2*n, []byte("\xff\x00")), jpg[len(jpg)-2:])
		},
		"WebP of small chunks": func(n int) []byte {
			return webpFile(images["ada.webp"][12:],
				many(n/2, webpChunk("none", nil)))
		},
	} {
		data := build(1_000_000)
		began := time.Now()
		if _, _, err := cleanImage(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s: %v for %d bytes", name, d, len(data))
		}
	}
}

func FuzzCleanImage(f *testing.F) {
	for _, planted := range plantedImages(f) {
		if len(planted[0]) < 1<<16 {
			f.Add(planted[0])
		}
	}
	for _, file := range testkit.Must(filepath.Glob("testdata/images/*.*")) {
		f.Add(testkit.Must(os.ReadFile(file)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		checkClean(t, "input", withPNGSums(data))
	})
}

// withPNGSums corrects the CRCs of a PNG, which a mutation cannot find.
func withPNGSums(data []byte) []byte {
	data = bytes.Clone(data)
	if !bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")) || len(data)%8 == 0 {
		return data
	}
	for i := 8; len(data)-i >= 12 && binary.BigEndian.Uint32(data[i:]) <= uint32(len(data)-i-12); {
		n := int(binary.BigEndian.Uint32(data[i:]))
		binary.BigEndian.PutUint32(data[i+8+n:], crc32.ChecksumIEEE(data[i+4:i+8+n]))
		i += 12 + n
	}
	return data
}

func BenchmarkCleanImage(b *testing.B) {
	photo := noise(4000, 3000)
	var jpg bytes.Buffer
	jpeg.Encode(&jpg, photo, &jpeg.Options{Quality: 91})
	exif := jpegSegment(0xe1, exifHeader, string(exifWith(binary.LittleEndian, 6)))
	anim := testkit.Must(os.ReadFile("testdata/images/gif-anim.gif"))
	at := 13 + gifColors(anim[10])
	for _, bench := range []struct {
		name string
		data []byte
	}{
		{"JPEG", jpg.Bytes()},
		{"JPEG with EXIF", slices.Concat(jpg.Bytes()[:2], exif, jpg.Bytes()[2:])},
		{"PNG", testkit.PNG(noise(1500, 1000))},
		{"GIF", slices.Concat(anim[:len(anim)-1], bytes.Repeat(anim[at+19:len(anim)-1], 300), []byte(";"))},
		{"WebP with EXIF", webpFile(webpCanvas(8, 96, 72), testkit.Must(os.ReadFile("testdata/images/ok.webp"))[12:],
			webpChunk("EXIF", make([]byte, 1<<20)))},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.data)))
			b.ReportMetric(float64(len(bench.data))/1e6, "MB")
			for b.Loop() {
				if _, _, err := cleanImage(bench.data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// noise draws an image that compresses about as well as a photograph.
func noise(width, height int) *image.NRGBA {
	img := testkit.Gradient(width, height, 3)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range img.Pix {
		if i%4 != 3 {
			img.Pix[i] = byte(128+i/40000%64) + byte(random.UintN(72))
		}
	}
	return img
}

// A profileTag is a tag of a color profile: its name, and its content, type first.
type profileTag struct{ name, content string }

// iccProfile is a color profile of a monitor.
func iccProfile(space string, tags ...profileTag) []byte {
	header := make([]byte, 128)
	copy(header[8:], "\x02\x40\x00\x00mntr"+space+"XYZ \x07\xe8\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00acsp")
	copy(header[68:], "\x00\x00\xf6\xd6\x00\x01\x00\x00\x00\x00\xd3\x2d") // D50
	copy(header[84:], "0123456789abcdef")                                 // ID
	table := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	var content []byte
	for _, tag := range tags {
		at := len(header) + 4 + 12*len(tags) + len(content)
		table = append(table, tag.name...)
		table = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(table, uint32(at)),
			uint32(len(tag.content)))
		content = append(content, tag.content...)
		content = append(content, make([]byte, -len(content)&3)...)
	}
	profile := slices.Concat(header, table, content)
	binary.BigEndian.PutUint32(profile, uint32(len(profile)))
	return profile
}

func iccXYZ(name string, x, y, z float64) profileTag {
	content := []byte("XYZ \x00\x00\x00\x00")
	for _, v := range []float64{x, y, z} {
		content = binary.BigEndian.AppendUint32(content, uint32(int32(v*65536)))
	}
	return profileTag{name, string(content)}
}

func iccGamma(name string, gamma float64) profileTag {
	return profileTag{name, "curv\x00\x00\x00\x00\x00\x00\x00\x01" +
		string(binary.BigEndian.AppendUint16(nil, uint16(gamma*256)))}
}

// iccTexts are the description of a profile in its two types, of this length, and the copyright.
func iccTexts(text string) []profileTag {
	size := binary.BigEndian.AppendUint32(nil, uint32(len(text)+1))
	var utf16 []byte
	for _, c := range []byte(text) {
		utf16 = append(utf16, 0, c)
	}
	record := binary.BigEndian.AppendUint32([]byte("enUS"), uint32(len(utf16)))
	return []profileTag{
		{"desc", "desc\x00\x00\x00\x00" + string(size) + text + string(make([]byte, 79))},
		{"dscm", "mluc\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0c" + string(record) + "\x00\x00\x00\x1c" +
			string(utf16)},
		{"cprt", "text\x00\x00\x00\x00Public domain\x00"},
	}
}

func rgbProfile(gamma float64, primaries [9]float64, more ...profileTag) []byte {
	p := primaries
	return iccProfile("RGB ", slices.Concat(iccTexts("Display of nobody"), []profileTag{
		iccXYZ("wtpt", 0.9642, 1, 0.8249), iccXYZ("rXYZ", p[0], p[1], p[2]), iccXYZ("gXYZ", p[3], p[4], p[5]),
		iccXYZ("bXYZ", p[6], p[7], p[8]),
		iccGamma("rTRC", gamma), iccGamma("gTRC", gamma), iccGamma("bTRC", gamma),
	}, more)...)
}

func grayProfile(gamma float64) []byte {
	return iccProfile("GRAY", append(iccTexts("Gray"), iccXYZ("wtpt", 0.9642, 1, 0.8249), iccGamma("kTRC", gamma))...)
}

var (
	adobeRGB  = [9]float64{0.60974, 0.31111, 0.01947, 0.20528, 0.62567, 0.06087, 0.14919, 0.06322, 0.74457}
	displayP3 = [9]float64{0.51512, 0.24120, -0.00105, 0.29198, 0.69225, 0.04189, 0.15710, 0.06657, 0.78407}
	appleRGB  = [9]float64{0.45427, 0.24263, 0.01482, 0.35332, 0.67441, 0.09042, 0.15662, 0.08336, 0.71953}
)

// plantedProfile has the secret in every place, and the same profile without.
func plantedProfile() (planted, clean []byte) {
	more := []profileTag{
		{"mmod", "mmod\x00\x00\x00\x00" + secret}, {"vcgt", "vcgt\x00\x00\x00\x00" + secret},
		{"dmdd", iccTexts(secret)[0].content},
	}
	planted = rgbProfile(2.2, adobeRGB, append(iccTexts(secret)[:2], more...)...)
	planted = append(planted, secret...) // in no tag
	clean = bytes.ReplaceAll(planted, []byte(secret), make([]byte, len(secret)))
	for _, text := range []string{secret, "Display of nobody"} {
		for _, utf16 := range []string{text, iccTexts(text)[1].content[28:]} {
			clean = bytes.ReplaceAll(clean, []byte(utf16), make([]byte, len(utf16)))
		}
	}
	clear(clean[84:100])
	return planted, clean
}

// TestCleanProfile: only what color engines read stays, and the structure.
func TestCleanProfile(t *testing.T) {
	planted, want := plantedProfile()
	got := cleanProfile(slices.Clone(planted))
	if !bytes.Equal(got, want) {
		t.Errorf("profile: got %q, want %q", got, want)
	}
	if again := cleanProfile(slices.Clone(got)); !bytes.Equal(again, got) {
		t.Error("profile: cleaned differently the second time")
	}
	shared := slices.Clone(planted) // rTRC is the content of vcgt, too
	at := func(name string) int { return 132 + bytes.Index(shared[132:], []byte(name)) }
	copy(shared[at("vcgt")+4:at("vcgt")+12], shared[at("rTRC")+4:])
	if got := cleanProfile(shared); !bytes.Contains(got, []byte("curv\x00\x00\x00\x00\x00\x00\x00\x01\x02\x33")) {
		t.Error("profile: content of rTRC is blanked because vcgt shares it")
	}
	chunk := compressed("icc", want)
	hidden := pngChunk("iCCP", append(chunk[8:len(chunk)-4:len(chunk)-4], "hidden"...))
	if kept := new(walker).pngProfile(hidden); kept == nil || bytes.Contains(kept, []byte("hidden")) {
		t.Errorf("profile: what is behind it in its chunk stays: %q", kept)
	}
}

// TestCleanProfileBroken: a profile that no color engine takes is dropped.
func TestCleanProfileBroken(t *testing.T) {
	patched := func(at int, value uint32) []byte {
		profile := rgbProfile(2.2, adobeRGB)
		binary.BigEndian.PutUint32(profile[at:], value)
		return profile
	}
	for name, profile := range map[string][]byte{
		"empty":                  {},
		"no signature":           patched(36, 0),
		"100,000 tags":           append(patched(128, 100_000), make([]byte, 1_200_000)...),
		"4,294,967,295 tags":     patched(128, 0xffffffff),
		"tag table past the end": patched(128, 99),
		"tag past the end":       patched(136, 0xfffffff0),
		"tag of 4 GB":            patched(140, 0xffffffff),
	} {
		if got := cleanProfile(profile); got != nil {
			t.Errorf("profile with %s: %d bytes stay", name, len(got))
		}
	}
	if clean := cleanProfile(patched(0, 0xffffffff)); clean == nil {
		t.Error("profile that announces 4 GB: dropped; browsers ignore it, others read it")
	}
}

// compressed compresses a profile as other programs do.
func compressed(name string, profile []byte) []byte {
	var b bytes.Buffer
	b.WriteString(name + "\x00\x00")
	w := zlib.NewWriter(&b)
	w.Write(profile)
	w.Close()
	return pngChunk("iCCP", b.Bytes())
}

// withTestProfile inserts a profile into a PNG or JPEG, in parts of at most 65,519 bytes.
func withTestProfile(img, profile []byte) []byte {
	if bytes.HasPrefix(img, []byte(pngSignature)) {
		return slices.Concat(img[:33], compressed("Display of nobody", profile), img[33:])
	}
	parts := slices.Collect(slices.Chunk(profile, maxProfile))
	var segments []byte
	for i, part := range parts {
		segments = append(segments, jpegSegment(0xe2, "ICC_PROFILE\x00", string([]byte{byte(i + 1), byte(len(parts))}),
			string(part))...)
	}
	return slices.Concat(img[:2], segments, img[2:])
}

// FuzzCleanProfile: whatever a profile is, it is dropped or keeps its size, header and tag table, in every format.
func FuzzCleanProfile(f *testing.F) {
	planted, clean := plantedProfile()
	f.Add(planted)
	f.Add(clean)
	f.Add(grayProfile(1.8))
	f.Add([]byte("profile"))
	img := testkit.Gradient(4, 4, 1)
	png, jpg := testkit.PNG(img), testkit.JPEG(img)
	thumb := png
	vp8l := testkit.Must(os.ReadFile("testdata/marker.webp"))[12:]
	f.Fuzz(func(t *testing.T, profile []byte) {
		if clean := cleanProfile(slices.Clone(profile)); clean != nil {
			table := 132 + 12*int(binary.BigEndian.Uint32(profile[128:]))
			if len(clean) != len(profile) || !bytes.Equal(clean[:84], profile[:84]) ||
				!bytes.Equal(clean[100:table], profile[100:table]) {
				t.Errorf("profile: size, header or tag table changed: %q, want %q", clean, profile)
			}
		}
		for name, data := range map[string][]byte{
			"PNG":  withTestProfile(png, profile),
			"JPEG": withTestProfile(jpg, profile[:min(len(profile), 200*maxProfile)]),
			"WebP": webpFile(webpCanvas(webpFlags["ICCP"], 90, 60), webpChunk("ICCP", profile), vp8l),
		} {
			clean, err := checkClean(t, name, data)
			if err != nil {
				t.Errorf("%s: refused because of its profile: %v", name, err)
			}
			if img, _, err := prepareThumbnail(clean); err == nil {
				withProfile(slices.Clone(thumb), img.profile) // must not panic
			}
		}
	})
}
