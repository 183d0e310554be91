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
	"math"
	"net/http"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"roster/internal/testkit"
)

func renderThumbnail(ctx context.Context, data []byte) ([]byte, error) {
	img, _, err := prepareThumbnail(data)
	if err != nil {
		return nil, err
	}
	return img.thumbnail(ctx)
}

func renderTest(t testing.TB, data []byte) (image.Image, string) {
	t.Helper()
	thumb, err := renderThumbnail(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	img, format, err := image.Decode(bytes.NewReader(thumb))
	if err != nil || img.Bounds() != image.Rect(0, 0, thumbnailSide, thumbnailSide) {
		t.Fatalf("the thumbnail is a %s, error %v; want %d × %[3]d pixels", format, err, thumbnailSide)
	}
	return img, "image/" + format
}

// wantColor compares colors with some tolerance, as JPEG needs.
func wantColor(t testing.TB, img image.Image, x, y int, want color.Color) {
	t.Helper()
	r, g, b, a := img.At(x, y).RGBA()
	r2, g2, b2, a2 := want.RGBA()
	for i, have := range []uint32{r, g, b, a} {
		if math.Abs(float64(have)-float64([]uint32{r2, g2, b2, a2}[i])) > 0x0a00 {
			t.Errorf("pixel %d, %d of the thumbnail: %v, want %v", x, y, img.At(x, y), want)
			return
		}
	}
}

var (
	red    = color.NRGBA{255, 0, 0, 255}
	green  = color.NRGBA{0, 255, 0, 255}
	blue   = color.NRGBA{0, 0, 255, 255}
	yellow = color.NRGBA{255, 255, 0, 255}
)

// marker is a wide image whose middle square has four colors. Beside it is white.
func marker() *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, 900, 600))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	for y := range 600 {
		for x := range 600 {
			img.SetNRGBA(150+x, y, []color.NRGBA{red, green, blue, yellow}[x/300+y/300*2])
		}
	}
	return img
}

// TestThumbnailOrientation: the corners of the marker, as each orientation turns them.
func TestThumbnailOrientation(t *testing.T) {
	jpg, pngImage := testkit.JPEG(marker()), testkit.PNG(marker())
	vp8l := testkit.Must(os.ReadFile("testdata/marker.webp"))[12:] // the same, of 90 × 60
	for o, corners := range map[byte][4]color.Color{               // top left, top right, bottom left, bottom right
		1: {red, green, blue, yellow}, 2: {green, red, yellow, blue}, 3: {yellow, blue, green, red}, 4: {blue, yellow, red, green},
		5: {red, blue, green, yellow}, 6: {blue, red, yellow, green}, 7: {yellow, green, blue, red}, 8: {green, yellow, red, blue},
	} {
		exif := exifWith(binary.LittleEndian, uint16(o))
		for mediaType, original := range map[string][]byte{
			"image/jpeg": slices.Concat(jpg[:2], jpegSegment(0xe1, exifHeader, string(exif)), jpg[2:]),
			"image/png":  slices.Concat(pngImage[:33], pngChunk("eXIf", exif), pngImage[33:]),
			"image/webp": webpFile(webpCanvas(webpFlags["EXIF"], 90, 60), vp8l, webpChunk("EXIF", exif)),
		} {
			clean, _, err := cleanImage(original)
			if err != nil {
				t.Fatal(err)
			}
			img, thumbType := renderTest(t, clean)
			if thumbType != "image/jpeg" {
				t.Errorf("the thumbnail of %s is %s, want image/jpeg", mediaType, thumbType)
			}
			for i, want := range corners {
				t.Logf("%s, orientation %d, corner %d", mediaType, o, i)
				wantColor(t, img, 40+i%2*175, 40+i/2*175, want)
			}
		}
	}
}

// TestThumbnailTransparency: a transparent image becomes a PNG, and the color of
// transparent pixels does not show at edges.
func TestThumbnailTransparency(t *testing.T) {
	src := image.NewNRGBA(image.Rect(0, 0, 1024, 1024))
	for y := range 1024 {
		for x := range 1024 {
			if (x/2+y/2)%2 == 0 {
				src.SetNRGBA(x, y, red)
			} else {
				src.SetNRGBA(x, y, color.NRGBA{0, 255, 0, 0})
			}
		}
	}
	img, thumbType := renderTest(t, testkit.PNG(src))
	if thumbType != "image/png" {
		t.Fatalf("the thumbnail of a transparent PNG is %s, want image/png", thumbType)
	}
	for _, at := range []image.Point{{100, 100}, {101, 100}, {200, 77}} {
		c := color.NRGBAModel.Convert(img.At(at.X, at.Y)).(color.NRGBA)
		if c.R < 250 || c.G > 5 || c.A < 110 || c.A > 145 {
			t.Errorf("pixel %v of the thumbnail: %v, want half-transparent red", at, c)
		}
	}
}

// TestThumbnailAverage: each pixel of the original counts the same.
func TestThumbnailAverage(t *testing.T) {
	src := image.NewGray(image.Rect(0, 0, 2048, 2048))
	for i := range src.Pix {
		src.Pix[i] = byte(i % 8 / 7 * 255) // one of eight columns is white
	}
	img, _ := renderTest(t, testkit.PNG(src))
	for x := 2; x < thumbnailSide-2; x++ {
		wantColor(t, img, x, 128, color.Gray{32})
	}
}

// TestThumbnailKinds: every color model, small images and long ones.
func TestThumbnailKinds(t *testing.T) {
	file := func(name string) []byte { return testkit.Must(os.ReadFile("testdata/" + name)) }
	deep := image.NewNRGBA64(image.Rect(0, 0, 300, 300))
	for i := range deep.Pix {
		deep.Pix[i] = 0xff
	}
	for _, test := range []struct {
		name      string
		data      []byte
		thumbType string
	}{
		{"gray", testkit.JPEG(image.NewGray(image.Rect(0, 0, 500, 300))), "image/jpeg"},
		{"CMYK", file("images/jpg-cmyk.jpg"), "image/jpeg"},
		{"CMYK, progressive", file("progressive-cmyk.jpg"), "image/jpeg"},
		{"RGB", file("images/jpg-rgb.jpg"), "image/jpeg"},
		{"16 bits", testkit.PNG(deep), "image/jpeg"},
		{"one pixel", testkit.PNG(testkit.Gradient(1, 1, 1)), "image/jpeg"},
		{"a line", testkit.PNG(testkit.Gradient(60_000, 1, 1)), "image/jpeg"},
		{"APNG", file("images/png-apng.png"), "image/jpeg"},
		{"GIF, animated", file("images/gif-anim.gif"), "image/jpeg"},
		{"GIF, frame beyond its screen", file("images/gif-frame-taller-than-screen.gif"), "image/jpeg"},
		{"GIF, no screen", file("images/gif-screen-0x0.gif"), "image/jpeg"},
		{"WebP", file("images/ok.webp"), "image/jpeg"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, thumbType := renderTest(t, test.data); thumbType != test.thumbType {
				t.Errorf("the thumbnail of %s is %s, want %s", test.name, thumbType, test.thumbType)
			}
		})
	}
}

// TestThumbnailWebP: lossy WebP has colors of a limited range, which is widened.
func TestThumbnailWebP(t *testing.T) {
	img, _ := renderTest(t, testkit.Must(os.ReadFile("testdata/colors/lossy-quarters.webp")))
	for i, want := range []color.Color{color.Black, color.White, red, blue} {
		wantColor(t, img, 64+i%2*128, 64+i/2*128, want)
	}
	img, mediaType := renderTest(t, testkit.Must(os.ReadFile("testdata/colors/lossy-alpha.webp")))
	if mediaType != "image/png" {
		t.Errorf("thumbnail of a transparent WebP: %s, want image/png", mediaType)
	}
	wantColor(t, img, 0, 0, color.Transparent)
	wantColor(t, img, 128, 128, color.NRGBA{220, 60, 40, 255})
}

// TestThumbnailGIF: of an animation the first frame is shown, where it is on its screen.
func TestThumbnailGIF(t *testing.T) {
	g := &gif.GIF{Config: image.Config{Width: 200, Height: 200}}
	for _, c := range []color.Color{red, blue} {
		frame := image.NewPaletted(image.Rect(100, 100, 200, 200), color.Palette{c, color.Transparent})
		frame.SetColorIndex(199, 199, 1)
		g.Image, g.Delay = append(g.Image, frame), append(g.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	img, thumbType := renderTest(t, b.Bytes())
	if thumbType != "image/png" {
		t.Errorf("the thumbnail of a transparent GIF is %s, want image/png", thumbType)
	}
	wantColor(t, img, 50, 50, color.Transparent)
	wantColor(t, img, 180, 180, red)
	wantColor(t, img, 255, 255, color.Transparent)

	// The frame is beside the middle square.
	g.Config.Width, g.Image[0].Rect = 600, image.Rect(0, 0, 100, 100)
	b.Reset()
	if err := gif.EncodeAll(&b, &gif.GIF{Config: g.Config, Image: g.Image[:1], Delay: g.Delay[:1]}); err != nil {
		t.Fatal(err)
	}
	img, _ = renderTest(t, b.Bytes())
	wantColor(t, img, 0, 0, color.Transparent)
}

// TestThumbnailLimits: progressive JPEG without subsampling is rendered up to 10 megapixels.
func TestThumbnailLimits(t *testing.T) {
	jpg := testkit.Must(os.ReadFile("testdata/colors/progressive-444.jpg"))
	for height, rendered := range map[uint16]bool{2500: true, 2800: false} {
		if _, cost, err := prepareThumbnail(patchedSize(jpg, 4000, height)); (err == nil) != rendered {
			t.Errorf("progressive JPEG of 4000 × %d: cost %d, error %v, want rendered: %t", height, cost, err, rendered)
		}
	}
}

// TestThumbnailHostile: what would take too much memory or time is not rendered, and
// that is found out without decoding it.
func TestThumbnailHostile(t *testing.T) {
	images := testkit.Files(t, "testdata")
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"JPEG of very many scans", jpegOfScans(8, maxThumbnailScans+1)},
		{"JPEG, 16 megapixels of progressive CMYK", patchedSize(testkit.Must(os.ReadFile("testdata/progressive-cmyk.jpg")), 4000, 4000)},
		{"PNG of 17 megapixels", pngOf(17_000, 1000)},
		{"GIF, frame of 25 megapixels", testkit.GIFClaiming(5000, 5000, 1)},
		{"WebP, animated", images["animated.webp"]},
		{"not an image", []byte("RIFF")},
	} {
		t.Run(test.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := prepareThumbnail(test.data)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Errorf("%s is rendered, want an error", test.name)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("rejecting %s allocates %d bytes, want at most 4 MiB", test.name, n)
			}
		})
	}
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"PNG without pixels", pngOf(100, 100)},
		{"JPEG without a table", testkit.Must(os.ReadFile("testdata/images/jpg-mjpeg-no-dht.jpg"))},
		{"GIF without a color table", testkit.Must(os.ReadFile("testdata/images/gif-no-color-table.gif"))},
	} {
		if _, err := renderThumbnail(t.Context(), test.data); err == nil {
			t.Errorf("%s is rendered, want an error", test.name)
		}
	}
}

// TestThumbnailOneWalk: only the frame that the walk found first is decoded.
func TestThumbnailOneWalk(t *testing.T) {
	small, large := testkit.GIF(8, 8, 1), testkit.GIF(5000, 5000, 1)
	many := slices.Concat(small[:len(small)-1], bytes.Repeat(large[13:len(large)-1], 10), []byte(";"))
	// Go reads the 0 as the size of an identifier, and takes what follows for sub-blocks.
	empty := slices.Concat(small[:13], []byte("!\xff\x00"), many[13:])
	for _, data := range [][]byte{many, empty} {
		if _, cost, err := prepareThumbnail(data); err != nil || cost != 64 {
			t.Errorf("a GIF of a small and ten large frames: cost %d, error %v; want 64", cost, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		renderTest(t, data)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("a GIF of a small and ten large frames: rendering allocates %d bytes, want at most 8 MiB", n)
		}
	}
}

// pngOf is a PNG whose pixels are missing.
func pngOf(width, height uint32) []byte {
	return slices.Concat(testkit.PNGClaiming(width, height)[:33], pngChunk("IDAT", []byte("\x78\x9c")), pngEnd)
}

// patchedSize changes the size in a JPEG's frame header.
func patchedSize(data []byte, width, height uint16) []byte {
	data = bytes.Clone(data)
	at := bytes.Index(data, []byte("\xff\xc2"))
	binary.BigEndian.PutUint16(data[at+5:], height)
	binary.BigEndian.PutUint16(data[at+7:], width)
	return data
}

// TestThumbnailRedirect: the thumbnail of an image that cannot be rendered is a redirect to the image.
func TestThumbnailRedirect(t *testing.T) {
	store := openTestLocal(t, t.TempDir())
	s := newTestServer(config{}, localUsers{store}, localAvatars{store}, nil)
	u := testUser("ada@example.com")
	wantError(t, localUsers{store}.Create(t.Context(), u), nil)
	animated := testkit.Must(os.ReadFile("testdata/animated.webp"))
	if w := request(t, s, "PUT /users/"+u.ID+"/avatar", animated); w.Code != http.StatusOK {
		t.Fatalf("PUT: status %d %s", w.Code, w.Body)
	}
	want := "/users/" + u.ID + "/avatar/" + testkit.Must(localUsers{store}.Get(t.Context(), u.ID)).Avatar.Key
	for range 2 { // rendered, and stored
		w := request(t, s, "GET /users/"+u.ID+"/thumbnail", nil)
		if got := w.Header().Get("Location"); w.Code != http.StatusFound || got != want {
			t.Errorf("thumbnail of an animated WebP: status %d, Location %q, want 302 to %s", w.Code, got, want)
		}
	}
}

// TestThumbnailReplaced: no thumbnail is left of an image that is replaced while it is rendered.
func TestThumbnailReplaced(t *testing.T) {
	t.Parallel()
	_, bucket, users, u, url := serveOne(t)
	path := url + "/users/" + u.ID
	put := func(seed int) {
		t.Helper()
		image := testkit.PNG(testkit.Gradient(20, 20, seed))
		status, body, err := testkit.Send(http.DefaultClient, "PUT", path+"/avatar", "", image)
		if status != http.StatusOK {
			t.Fatalf("PUT: status %d %s, error %v", status, body, err)
		}
	}
	put(1)
	gate, answered := make(chan struct{}), make(chan int)
	bucket.Next("PutObject", testkit.Fault{Gate: gate}) // of the thumbnail
	go func() {
		status, _, _ := testkit.Send(http.DefaultClient, "GET", path+"/thumbnail", "", nil)
		answered <- status
	}()
	testkit.Eventually(t, 10*time.Second, "the thumbnail is on its way to S3", func() error {
		if n := bucket.Calls("PutObject"); n != 2 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	put(2)
	testkit.Eventually(t, 10*time.Second, "the previous image is deleted", func() error {
		if keys := bucket.Keys(); len(keys) != 1 {
			return fmt.Errorf("%q are stored", keys)
		}
		return nil
	})
	close(gate)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("GET of the thumbnail: status %d, want 200", status)
	}
	key := testkit.Must(users.Get(t.Context(), u.ID)).Avatar.Key
	want := []string{avatarKey(u.ID, key), avatarKey(u.ID, thumbnailKey(key))}
	testkit.Eventually(t, 10*time.Second, "the new image and its thumbnail are left", func() error {
		if keys := bucket.Keys(); !slices.Equal(keys, want) {
			return fmt.Errorf("%q, want %q", keys, want)
		}
		return nil
	})
}

// An endingContext ends after some calls of Err.
type endingContext struct {
	context.Context
	calls int // that are left
}

func (c *endingContext) Err() error {
	if c.calls--; c.calls < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestThumbnailDeadline: a deadline that passes while an image is decoded ends decoding.
func TestThumbnailDeadline(t *testing.T) {
	data := testkit.PNG(noise(400, 300))
	ctx := &endingContext{t.Context(), 10}
	if _, err := renderThumbnail(ctx, data); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("rendering after its deadline: error %v, want %v", err, context.DeadlineExceeded)
	}
	if ctx.calls < -10 {
		t.Errorf("%d reads after the deadline", -ctx.calls)
	}
}

// TestThumbnailMemory compares the cost of a thumbnail with the actual allocations of decoding.
func TestThumbnailMemory(t *testing.T) {
	flat := image.NewNRGBA(image.Rect(0, 0, 1500, 1500))
	deep := image.NewNRGBA64(flat.Rect)
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"PNG", testkit.PNG(flat)},
		{"PNG, 16 bits", testkit.PNG(deep)},
		{"JPEG", testkit.JPEG(flat)},
		{"JPEG, gray", testkit.JPEG(image.NewGray(flat.Rect))},
		{"JPEG, progressive", testkit.Must(os.ReadFile("testdata/progressive.jpg"))},
		{"JPEG, progressive CMYK", testkit.Must(os.ReadFile("testdata/progressive-cmyk.jpg"))},
		{"GIF", testkit.GIF(1500, 1500, 4)},
		{"JPEG, progressive, 4:4:4", testkit.Must(os.ReadFile("testdata/colors/progressive-444.jpg"))},
		{"WebP, Huffman trees", webpOfTrees(900)},
		{"WebP, lossy", testkit.Must(os.ReadFile("testdata/colors/lossy.webp"))},
		{"WebP, lossy with transparency", testkit.Must(os.ReadFile("testdata/colors/lossy-alpha.webp"))},
		{"WebP, palette", testkit.Must(os.ReadFile("testdata/colors/palette.webp"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			img, cost, err := prepareThumbnail(test.data)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, _, err := image.Decode(bytes.NewReader(img.data)); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			// All that is allocated counts, also what the decoder lets go of on its way.
			if got, most := int64(after.TotalAlloc-before.TotalAlloc), cost*thumbnailPixelBytes; got > most+most/4+1<<20 {
				t.Errorf("decoding %s allocates %d bytes, its cost is for %d", test.name, got, most)
			}
		})
	}
}

func BenchmarkThumbnail(b *testing.B) {
	photo := noise(4000, 3000)
	for _, bench := range []struct {
		name string
		data []byte
	}{
		{"JPEG of 12 megapixels", testkit.JPEG(photo)},
		{"PNG of 12 megapixels", testkit.PNG(photo)},
		{"JPEG of 48 kB", testkit.JPEG(noise(400, 300))},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := renderThumbnail(b.Context(), bench.data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
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
