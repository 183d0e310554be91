package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"roster/internal/testkit"
)

func renderThumbnail(data []byte) ([]byte, error) {
	img, _, err := prepareThumbnail(data)
	if err != nil {
		return nil, err
	}
	return img.thumbnail()
}

func renderTest(t testing.TB, data []byte) (image.Image, string) {
	t.Helper()
	thumb, err := renderThumbnail(data)
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
		1: {red, green, blue, yellow}, 2: {green, red, yellow, blue}, 3: {yellow, blue, green, red},
		4: {blue, yellow, red, green},
		5: {red, blue, green, yellow}, 6: {blue, red, yellow, green}, 7: {yellow, green, blue, red},
		8: {green, yellow, red, blue},
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
			t.Errorf("progressive JPEG of 4000 × %d: cost %d, error %v, want rendered: %t",
				height, cost, err, rendered)
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
		{"JPEG of CMYK", testkit.Must(os.ReadFile("testdata/images/jpg-cmyk.jpg"))},
		{"JPEG of CMYK, progressive", testkit.Must(os.ReadFile("testdata/progressive-cmyk.jpg"))},
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
		if _, err := renderThumbnail(test.data); err == nil {
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
	testkit.Eventually(t, "the thumbnail is on its way to S3", func() error {
		if n := bucket.Calls("PutObject"); n != 2 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	put(2)
	testkit.Eventually(t, "the previous image is deleted", func() error {
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
	testkit.Eventually(t, "the new image and its thumbnail are left", func() error {
		if keys := bucket.Keys(); !slices.Equal(keys, want) {
			return fmt.Errorf("%q, want %q", keys, want)
		}
		return nil
	})
}

// A slowAvatars store takes longer for an image than a thumbnail waits for capacity.
type slowAvatars struct{ Avatars }

func (slow slowAvatars) Get(ctx context.Context, id, key string, offset int64) (io.ReadCloser, error) {
	if !strings.HasSuffix(key, thumbnailKey("")) {
		time.Sleep(2100 * time.Millisecond)
	}
	return slow.Avatars.Get(ctx, id, key, offset)
}

// TestThumbnailSlowStore: the time to read an image does not count as a wait for capacity.
func TestThumbnailSlowStore(t *testing.T) {
	t.Parallel()
	store := openTestLocal(t, t.TempDir())
	image := testkit.PNG(testkit.Gradient(20, 20, 1))
	u := testUser("ada@example.com")
	u.Avatar = testAvatar(image)
	wantError(t, localAvatars{store}.Put(t.Context(), u.ID, u.Avatar.Key, u.Avatar.Type, image), nil)
	wantError(t, localUsers{store}.Create(t.Context(), u), nil)
	s := newTestServer(config{}, localUsers{store}, slowAvatars{localAvatars{store}}, nil)
	if w := request(t, s, "GET /users/"+u.ID+"/thumbnail", nil); w.Code != http.StatusOK {
		t.Errorf("thumbnail of an image that takes 2.1 s to read: status %d, want 200", w.Code)
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
		{"JPEG, RGB", testkit.Must(os.ReadFile("testdata/images/jpg-rgb.jpg"))},
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
			if got, most := int64(after.TotalAlloc-before.TotalAlloc),
				cost*thumbnailPixelBytes; got > most+most/4+1<<20 {
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
				if _, err := renderThumbnail(bench.data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestReduce compares an image at 1/k of its size with the averages of its pixels, at odd sizes and offsets.
func TestReduce(t *testing.T) {
	rect := image.Rect(0, 0, 77, 61)
	for _, img := range scaledImages(rect) {
		fill(img)
		part := img.(interface {
			SubImage(image.Rectangle) image.Image
		}).SubImage(image.Rect(16, 8, 77, 51))
		for _, k := range []int{1, 2, 4, 8} {
			small := reduce(part, k)
			if size, want := small.Bounds().Size(), image.Pt((61+k-1)/k, (43+k-1)/k); size != want {
				t.Fatalf("%T at 1/%d: %v, want %v", img, k, size, want)
			}
			worst := 0
			for y := range small.Bounds().Dy() {
				for x := range small.Bounds().Dx() {
					at := small.Bounds().Min
					worst = max(worst, distance(small.At(at.X+x, at.Y+y), averageColor(part, x*k, y*k, k)))
				}
			}
			if worst > 7 { // at an edge within a color sample of 4:2:0; 2 otherwise
				t.Errorf("%T at 1/%d: a pixel differs by %d, want at most 7", img, k, worst)
			}
		}
	}
}

// averageColor averages up to k × k pixels of an image, which begin x and y from its corner.
func averageColor(img image.Image, x, y, k int) color.Color {
	var sum [4]uint32
	var n uint32
	corner := img.Bounds().Min.Add(image.Pt(x, y))
	block := image.Rectangle{corner, corner.Add(image.Pt(k, k))}.Intersect(img.Bounds())
	for y := block.Min.Y; y < block.Max.Y; y++ {
		for x := block.Min.X; x < block.Max.X; x++ {
			r, g, b, a := img.At(x, y).RGBA()
			sum = [4]uint32{sum[0] + r, sum[1] + g, sum[2] + b, sum[3] + a}
			n++
		}
	}
	return color.RGBA64{uint16(sum[0] / n), uint16(sum[1] / n), uint16(sum[2] / n), uint16(sum[3] / n)}
}

// distance returns the largest difference of a channel, of 255.
func distance(a, b color.Color) int {
	r, g, b1, a1 := a.RGBA()
	r2, g2, b2, a2 := b.RGBA()
	worst := 0
	for _, d := range []int{int(r) - int(r2), int(g) - int(g2), int(b1) - int(b2), int(a1) - int(a2)} {
		worst = max(worst, d/257, -d/257)
	}
	return worst
}

// scaledImages are an image of each type that Go's decoders return.
func scaledImages(rect image.Rectangle) []image.Image {
	return []image.Image{
		image.NewGray(rect),
		image.NewGray16(rect),
		image.NewYCbCr(rect, image.YCbCrSubsampleRatio420),
		image.NewYCbCr(rect, image.YCbCrSubsampleRatio444),
		image.NewNYCbCrA(rect, image.YCbCrSubsampleRatio420),
		image.NewRGBA(rect),
		image.NewRGBA64(rect),
		image.NewNRGBA(rect),
		image.NewNRGBA64(rect),
		image.NewPaletted(rect, webSafe()),
	}
}

// BenchmarkThumbnailScale measures what 12 megapixels take beyond decoding, by kind of image.
func BenchmarkThumbnailScale(b *testing.B) {
	rect := image.Rect(0, 0, 4000, 3000)
	for _, img := range scaledImages(rect) {
		fill(img)
		b.Run(fmt.Sprintf("%T", img), func(b *testing.B) {
			w := walker{width: rect.Dx(), height: rect.Dy()}
			for b.Loop() {
				if _, err := w.encode(w.scale(img)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fill fills the planes of an image with a gradient and a little noise. Half of what can be transparent is.
func fill(img image.Image) {
	plane := func(pix []byte, width, levels int) {
		noise := rand.New(rand.NewPCG(1, 2))
		for i := range pix {
			pix[i] = byte((i/width/12 + i%width*levels/width + noise.IntN(4)) % levels)
		}
	}
	alpha := func(pix []byte, width, at, pixel int) {
		for i := at; i < len(pix); i += pixel {
			pix[i] = byte(min(i%width*512/width, 255))
		}
	}
	switch img := img.(type) {
	case *image.Gray:
		plane(img.Pix, img.Stride, 256)
	case *image.Gray16:
		plane(img.Pix, img.Stride, 256)
	case *image.YCbCr:
		plane(img.Y, img.YStride, 256)
		plane(img.Cb, img.CStride, 256)
		plane(img.Cr, img.CStride, 256)
		for _, samples := range [][]byte{img.Y, img.Cb, img.Cr} {
			for i, sample := range samples {
				samples[i] = 96 + sample/4 // colors that RGB has
			}
		}
	case *image.NYCbCrA:
		fill(&img.YCbCr)
		alpha(img.A, img.AStride, 0, 1)
	case *image.RGBA:
		plane(img.Pix, img.Stride, 256)
		for i := 3; i < len(img.Pix); i += 4 {
			img.Pix[i] = 255
		}
	case *image.RGBA64:
		plane(img.Pix, img.Stride, 256)
		for i := 6; i < len(img.Pix); i += 8 {
			img.Pix[i], img.Pix[i+1] = 255, 255
		}
	case *image.NRGBA:
		plane(img.Pix, img.Stride, 256)
		alpha(img.Pix, img.Stride, 3, 4)
	case *image.NRGBA64:
		plane(img.Pix, img.Stride, 256)
		alpha(img.Pix, img.Stride, 6, 8)
	case *image.Paletted:
		plane(img.Pix, img.Stride, len(img.Palette))
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

// A shownImage is an image as browsers show it beside its thumbnail.
type shownImage struct {
	name                      string
	data                      []byte
	redirect                  string  // why there is no thumbnail, as the contract says it; empty: it is rendered
	tolerance                 float64 // mean difference of a channel to the browser, of 255
	clean, thumb              []byte
	whole, cleaned, thumbnail []byte // 256 × 256 pixels of 4 bytes, as the browser shows them
}

// The kinds of images that redirect, in the words of the contract.
const (
	animatedWebP  = "animated WebP"
	tooManyPixels = "more than 16 megapixels"
	tooMuchMemory = "more than 160 MB"
	manyScans     = "more than 64 scans"
	notDecodable  = "Go's decoders reject"
	cmyk          = "JPEG of CMYK"
	largeProfile  = "color profile over 64 kB"
	grayProfileA  = "transparent gray with a color profile"
	otherGamma    = "gamma, chromaticities"
	otherSpace    = "or cICP other than"
	hiddenDefault = "whose animation leaves out the default image"
)

// TestThumbnailBrowser renders images of all kinds in Chromium, and compares them with their thumbnails.
// It takes 10 s of CPU time, so it runs with -long.
func TestThumbnailBrowser(t *testing.T) {
	t.Parallel()
	if !*testkit.Long {
		t.Skip("runs with -long")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no Chromium on the PATH")
	}
	images := shownImages(t)
	_, _, _, u, url := serveOne(t)
	contract := string(testkit.Must(os.ReadFile("openapi.yaml")))
	seen := map[string]bool{}
	for _, img := range images {
		img.serve(t, url+"/users/"+u.ID)
		seen[img.redirect] = true
		if !strings.Contains(contract, img.redirect) {
			t.Errorf("%s redirects to the image, and the contract does not list %q", img.name, img.redirect)
		}
	}
	for _, kind := range []string{animatedWebP, tooManyPixels, tooMuchMemory, manyScans, notDecodable, cmyk,
		largeProfile, grayProfileA, otherGamma, otherSpace, hiddenDefault} {
		if !seen[kind] {
			t.Errorf("no image that redirects because of %q", kind)
		}
	}
	show(t, chromium, images)
	rendered := 0
	for _, img := range images {
		if d := difference(img.whole, img.cleaned); d > 0 {
			t.Errorf("%s: cleaned, it differs by %.2f", img.name, d)
		}
		if img.redirect != "" {
			continue
		}
		rendered++
		if d := difference(img.whole, img.thumbnail); !(d <= img.tolerance) {
			t.Errorf("%s: its thumbnail differs by %.2f, want at most %g", img.name, d, img.tolerance)
		} else {
			t.Logf("%s: %.2f", img.name, d)
		}
	}
	if rendered < 60 {
		t.Errorf("%d images are rendered, want 60", rendered)
	}
	sheet := filepath.Join(t.ArtifactDir(), "thumbnails.png")
	if err := os.WriteFile(sheet, testkit.PNG(contactSheet(images)), 0o644); err != nil {
		t.Error(err)
	}
	t.Logf("contact sheet, kept with -artifacts: %s", sheet)
}

// serve uploads the image, and reads it and its thumbnail.
func (img *shownImage) serve(t *testing.T, user string) {
	t.Helper()
	status, body, err := testkit.Send(http.DefaultClient, "PUT", user+"/avatar", "", img.data)
	if err != nil || status != http.StatusOK {
		t.Fatalf("PUT of %s: status %d %s, error %v", img.name, status, body, err)
	}
	get := func(path string) (int, []byte) {
		client := http.Client{CheckRedirect: func(*http.Request,
			[]*http.Request) error {
			return http.ErrUseLastResponse
		}}
		status, body, err := testkit.Send(&client, "GET", user+path, "", nil)
		if err != nil {
			t.Fatalf("GET %s of %s: %v", path, img.name, err)
		}
		return status, body
	}
	_, img.clean = get("/avatar")
	want := http.StatusOK
	if img.redirect != "" {
		want = http.StatusFound
	}
	if status, img.thumb = get("/thumbnail"); status != want {
		t.Errorf("thumbnail of %s: status %d, want %d", img.name, status, want)
		img.redirect = cmp.Or(img.redirect, notDecodable)
	}
}

// difference returns the mean difference of two pictures.
func difference(a, b []byte) float64 {
	if len(a) == 0 || len(a) != len(b) {
		return math.NaN()
	}
	sum := 0
	for i := range a {
		sum += max(int(a[i])-int(b[i]), int(b[i])-int(a[i]))
	}
	return float64(sum) / float64(len(a))
}

// browserPage draws the middle square of each image at 256 × 256, and sends it back.
const browserPage = `<!DOCTYPE html><meta charset="utf-8"><script type="module">
const n = 256, canvas = document.createElement("canvas");
canvas.width = canvas.height = n;
const context = canvas.getContext("2d", {willReadFrequently: true});
context.imageSmoothingQuality = "high";
for (const url of await (await fetch("/list")).json()) {
	const img = new Image();
	img.src = url;
	try { await img.decode(); } catch (e) { console.log(url, e); }
	const side = Math.min(img.naturalWidth, img.naturalHeight);
	context.fillStyle = "rgb(128, 128, 128)";
	context.fillRect(0, 0, n, n);
	const left = Math.floor((img.naturalWidth - side) / 2), top = Math.floor((img.naturalHeight - side) / 2);
	context.drawImage(img, left, top, side, side, 0, 0, n, n);
	await fetch(url, {method: "POST", body: context.getImageData(0, 0, n, n).data});
}
await fetch("/done", {method: "POST"});
</script>`

// show has Chromium draw all images.
func show(t *testing.T, chromium string, images []*shownImage) {
	t.Helper()
	var list []string
	mux, done := http.NewServeMux(), make(chan struct{})
	add := func(path string, data []byte, drawn *[]byte) {
		list = append(list, path)
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { w.Write(data) })
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { *drawn, _ = io.ReadAll(r.Body) })
	}
	for i, img := range images {
		add(fmt.Sprintf("/%d/whole", i), img.data, &img.whole)
		add(fmt.Sprintf("/%d/clean", i), img.clean, &img.cleaned)
		if img.redirect == "" {
			add(fmt.Sprintf("/%d/thumbnail", i), img.thumb, &img.thumbnail)
		}
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, browserPage) })
	mux.HandleFunc("GET /list", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(list) })
	mux.HandleFunc("POST /done", func(w http.ResponseWriter, r *http.Request) { close(done) })
	server := httptest.NewServer(mux)
	defer server.Close()

	profile := testkit.Must(os.MkdirTemp("", "roster-chromium-"))
	defer os.RemoveAll(profile)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--force-color-profile=srgb", "--user-data-dir="+profile, "--no-proxy-server", server.URL)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that all its processes end
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-ctx.Done():
		t.Errorf("Chromium has not drawn all images:\n%s", output.String())
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
}

// contactSheet has a row for five images: each as the browser shows it, and its thumbnail.
func contactSheet(images []*shownImage) image.Image {
	const side, columns, label = 128, 5, 14
	sheet := image.NewRGBA(image.Rect(0, 0, columns*(2*side+8), (len(images)+columns-1)/columns*(side+label+4)))
	draw.Draw(sheet, sheet.Rect, image.White, image.Point{}, draw.Src)
	for i, img := range images {
		x, y := i%columns*(2*side+8), i/columns*(side+label+4)
		text := font.Drawer{Dst: sheet, Src: image.Black, Face: basicfont.Face7x13, Dot: fixed.P(x, y+11)}
		text.DrawString(img.name + map[bool]string{true: " (302)"}[img.redirect != ""])
		for j, drawn := range [][]byte{img.whole, img.thumbnail} {
			for p := range side * side {
				if at := (p/side*2*thumbnailSide + p%side*2) * 4; at < len(drawn) {
					sheet.SetRGBA(x+j*side+p%side, y+label+p/side, color.RGBA{drawn[at], drawn[at+1], drawn[at+2], 255})
				}
			}
		}
	}
	return sheet
}

// scene draws curves, edges, and saturated, dark and bright colors.
func scene(width, height int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			u, v := float64(x)/float64(width), float64(y)/float64(height)
			c := color.NRGBA{uint8(127 + 120*math.Sin(5*u)), uint8(127 + 120*math.Cos(4*v+u)), uint8(127 * (u + v)),
				255}
			switch {
			case math.Hypot(u-.5, v-.5) < .2:
				c = color.NRGBA{220, 60, 40, 255}
			case u > .25 && u < .4 && v > .6 && v < .9:
				c = color.NRGBA{0, 0, 0, 255}
			case u > .6 && u < .8 && v > .05 && v < .25:
				c = color.NRGBA{255, 255, 255, 255}
			case v > .8 && u > .5:
				c = color.NRGBA{30, 200, 60, 255}
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

// redrawn copies a scene into another kind of image.
func redrawn(to draw.Image, from image.Image) image.Image {
	draw.Draw(to, to.Bounds(), from, image.Point{}, draw.Src)
	return to
}

// faded makes a scene transparent to its edges.
func faded(img *image.NRGBA) *image.NRGBA {
	w, h := float64(img.Rect.Dx()), float64(img.Rect.Dy())
	for i := range len(img.Pix) / 4 {
		x, y := float64(i%img.Rect.Dx())/w, float64(i/img.Rect.Dx())/h
		img.Pix[4*i+3] = uint8(255 * max(0, min(1, 3-6*math.Hypot(x-.5, y-.5))))
	}
	return img
}

func encodedGIF(screen image.Rectangle, frames ...*image.Paletted) []byte {
	g := &gif.GIF{Image: frames, Delay: make([]int, len(frames)),
		Config: image.Config{Width: screen.Dx(), Height: screen.Dy()}}
	for i := range g.Delay {
		g.Delay[i] = 1000
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func encodedJPEG(img image.Image) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// shownImages are the images to compare, made here or in testdata.
func shownImages(t *testing.T) []*shownImage {
	file := func(name string) []byte { return testkit.Must(os.ReadFile("testdata/" + name)) }
	rect := image.Rect(0, 0, 400, 300)
	small, gray := scene(400, 300), redrawn(image.NewGray(rect), scene(400, 300))
	pngOfScene, jpg := testkit.PNG(small), encodedJPEG(small)
	pngWith := func(chunks ...[]byte) []byte {
		return slices.Concat(pngOfScene[:33], slices.Concat(chunks...), pngOfScene[33:])
	}
	chunk := pngChunk
	palette := redrawn(image.NewPaletted(rect, webSafe()), small).(*image.Paletted)
	clearPalette := append(color.Palette{color.NRGBA{}, color.NRGBA{0, 0, 255, 128}}, webSafe()[:200]...)
	cut := redrawn(image.NewPaletted(rect, clearPalette), faded(scene(400, 300))).(*image.Paletted)
	apng := file("images/png-apng.png")
	vp8, vp8l := file("colors/lossy.webp")[12:], file("colors/lossless.webp")[12:]
	grayAlpha := slices.Concat(testkit.PNGGrayAlpha(64, 64))
	images := []*shownImage{
		{name: "PNG", data: pngOfScene},
		{name: "PNG gray", data: testkit.PNG(gray)},
		{name: "PNG gray 16", data: testkit.PNG(redrawn(image.NewGray16(rect), small))},
		{name: "PNG 16", data: testkit.PNG(redrawn(image.NewRGBA64(rect), small))},
		{name: "PNG 16 alpha", data: testkit.PNG(redrawn(image.NewNRGBA64(rect), faded(scene(400, 300))))},
		{name: "PNG alpha", data: testkit.PNG(faded(scene(400, 300)))},
		{name: "PNG alpha 1200", data: testkit.PNG(faded(scene(1200, 1600)))},
		{name: "PNG gray alpha", data: grayAlpha},
		{name: "PNG palette", data: testkit.PNG(palette)},
		{name: "PNG palette alpha", data: testkit.PNG(cut)},
		{name: "PNG 40 x 40", data: testkit.PNG(scene(40, 40))},
		{name: "PNG 1 x 1", data: testkit.PNG(scene(1, 1))},
		{name: "JPEG", data: jpg},
		{name: "JPEG gray", data: encodedJPEG(gray)},
		{name: "JPEG gray 1500", data: encodedJPEG(redrawn(image.NewGray(image.Rect(0, 0, 1500, 1501)),
			scene(1500, 1501)))},
		{name: "JPEG 4000 x 3000", data: encodedJPEG(scene(4000, 3000))},
		{name: "JPEG 1031 x 2063", data: encodedJPEG(scene(1031, 2063))},
		{name: "JPEG noise", data: encodedJPEG(noise(1200, 900)), tolerance: 6},
		{name: "JPEG progressive", data: file("progressive.jpg")},
		{name: "JPEG progressive 4:4:4", data: file("colors/progressive-444.jpg")},
		{name: "JPEG progressive CMYK", data: file("progressive-cmyk.jpg"), redirect: cmyk},
		{name: "GIF", data: encodedGIF(rect, palette)},
		{name: "GIF transparent", data: encodedGIF(rect, cut)},
		{name: "GIF animated", data: encodedGIF(rect, palette, cut)},
		{name: "GIF one-bit", data: encodedGIF(image.Rect(0, 0, 1600, 1200), dithered(scene(1600, 1200))),
			tolerance: 6},
		{name: "WebP lossy", data: file("colors/lossy.webp")},
		{name: "WebP lossy quarters", data: file("colors/lossy-quarters.webp")},
		{name: "WebP lossy alpha", data: file("colors/lossy-alpha.webp")},
		{name: "WebP lossless", data: file("colors/lossless.webp")},
		{name: "WebP palette", data: file("colors/palette.webp")},
		{name: "WebP lossy P3", data: webpFile(webpCanvas(webpFlags["ICCP"], 640, 480),
			webpChunk("ICCP", rgbProfile(2.2, displayP3)), vp8)},
		{name: "WebP lossless P3", data: webpFile(webpCanvas(webpFlags["ICCP"], 320, 240),
			webpChunk("ICCP", rgbProfile(2.2, displayP3)), vp8l)},
		{name: "JPEG Adobe RGB sample", data: file("colors/adobe-rgb.jpg")},
		{name: "JPEG Adobe RGB", data: withTestProfile(jpg, rgbProfile(2.2, adobeRGB))},
		{name: "JPEG P3", data: withTestProfile(jpg, rgbProfile(2.2, displayP3))},
		{name: "JPEG Apple RGB 1.8", data: withTestProfile(jpg, rgbProfile(1.8, appleRGB))},
		{name: "JPEG swapped colors", data: withTestProfile(jpg, rgbProfile(2.2, swappedRGB))},
		{name: "JPEG private tags", data: withTestProfile(jpg, first(plantedProfile()))},
		{name: "JPEG broken profile", data: withTestProfile(jpg, rgbProfile(1, swappedRGB)[:300])},
		{name: "JPEG gray profile", data: withTestProfile(jpg, grayProfile(1))},
		{name: "JPEG gray, gray profile", data: withTestProfile(encodedJPEG(gray), grayProfile(1))},
		{name: "JPEG gray, RGB profile", data: withTestProfile(encodedJPEG(gray), rgbProfile(1, adobeRGB))},
		{name: "PNG P3", data: withTestProfile(pngOfScene, rgbProfile(2.2, displayP3))},
		{name: "PNG swapped colors", data: withTestProfile(pngOfScene, rgbProfile(2.2, swappedRGB))},
		{name: "PNG alpha P3", data: withTestProfile(testkit.PNG(faded(scene(400, 300))), rgbProfile(2.2, displayP3))},
		{name: "PNG alpha swapped", data: withTestProfile(testkit.PNG(faded(scene(400, 300))),
			rgbProfile(2.2, swappedRGB))},
		{name: "PNG palette swapped", data: withTestProfile(testkit.PNG(palette), rgbProfile(2.2, swappedRGB))},
		{name: "PNG broken profile", data: withTestProfile(pngOfScene, []byte("profile"))},
		{name: "PNG gray profile", data: withTestProfile(pngOfScene, grayProfile(1))},
		{name: "PNG gray, gray profile", data: withTestProfile(testkit.PNG(gray), grayProfile(1))},
		{name: "PNG gray, RGB profile", data: withTestProfile(testkit.PNG(gray), rgbProfile(1, adobeRGB))},
		{name: "PNG gAMA 1/2.2", data: pngWith(chunk("gAMA", []byte("\x00\x00\xb1\x8f")))},
		{name: "PNG sRGB", data: pngWith(chunk("sRGB", []byte{0}))},
		{name: "PNG cICP sRGB", data: pngWith(chunk("cICP", []byte(pngSRGB)))},
		{name: "PNG sRGB's cHRM, gAMA", data: pngWith(chunk("gAMA", []byte("\x00\x00\xb1\x8f")),
			chunk("cHRM", sRGBChromaticities))},
		{name: "PNG cHRM, gAMA", data: pngWith(chunk("gAMA", []byte("\x00\x00\xb1\x8f")),
			chunk("cHRM", otherChromaticities)),
			redirect: otherGamma},
		{name: "PNG gAMA 1, sRGB", data: pngWith(chunk("gAMA", []byte("\x00\x01\x86\xa0")), chunk("sRGB", []byte{0})),
			redirect: otherGamma},
		{name: "WebP animated", data: file("animated.webp"), redirect: animatedWebP},
		{name: "PNG 4001 x 4000", data: testkit.PNG(image.NewGray(image.Rect(0, 0, 4001, 4000))),
			redirect: tooManyPixels},
		{name: "JPEG progressive 4:4:4 11 MP", data: patchedSize(file("colors/progressive-444.jpg"), 4000, 2800),
			redirect: tooMuchMemory},
		{name: "JPEG 65 scans", data: file("images/jpg-65-scans.jpg"), redirect: manyScans},
		{name: "JPEG CMYK, profile", data: withTestProfile(file("images/jpg-cmyk.jpg"),
			iccProfile("CMYK", iccTexts("CMYK")...)), redirect: cmyk},
		{name: "JPEG profile of 80 kB", data: withTestProfile(jpg,
			rgbProfile(2.2, swappedRGB, profileTag{"prvt", string(make([]byte, 80_000))})), redirect: largeProfile},
		{name: "PNG gray alpha, profile", data: withTestProfile(grayAlpha, grayProfile(1)), redirect: grayProfileA},
		{name: "PNG gAMA 1", data: file("colors/gamma-1.0.png"), redirect: otherGamma},
		{name: "PNG gAMA 1/1.8", data: pngWith(chunk("gAMA", []byte("\x00\x00\xd9\x03"))), redirect: otherGamma},
		{name: "PNG cICP P3", data: pngWith(chunk("cICP", []byte("\x0c\x0d\x00\x01"))), redirect: otherSpace},
		{name: "APNG without its image", data: withoutFirstControl(apng), redirect: hiddenDefault},
	}
	for o := 2; o <= 8; o++ {
		exif := jpegSegment(0xe1, exifHeader, string(exifOrientation(byte(o))))
		images = append(images, &shownImage{name: fmt.Sprintf("JPEG orientation %d", o),
			data: slices.Concat(jpg[:2], exif, jpg[2:])})
	}
	for line := range strings.Lines(string(file("images/INDEX.tsv"))) {
		if field := strings.Split(line, "\t"); field[1] == "200" {
			img := &shownImage{name: strings.TrimSuffix(field[0], filepath.Ext(field[0])),
				data:      file("images/" + field[0]),
				tolerance: 6}
			clean, _, _ := cleanImage(img.data)
			_, _, err := image.Decode(bytes.NewReader(clean))
			switch {
			case img.name == "webp-anim":
				img.redirect = animatedWebP
			case strings.HasPrefix(img.name, "jpg-cmyk"):
				img.redirect = cmyk
			case err != nil && !strings.HasPrefix(img.name, "gif-"):
				img.redirect = notDecodable
			}
			images = append(images, img)
		}
	}
	for _, img := range images {
		img.tolerance = max(img.tolerance, 3)
	}
	return images
}

var (
	swappedRGB         = [9]float64{0.14307, 0.06061, 0.71410, 0.43607, 0.22249, 0.01392, 0.38515, 0.71687, 0.09708}
	sRGBChromaticities = []byte("\x00\x00\x7a\x26\x00\x00\x80\x84" +
		"\x00\x00\xfa\x00\x00\x00\x80\xe8\x00\x00\x75\x30\x00\x00\xea\x60\x00\x00\x3a\x98\x00\x00\x17\x70")
	// otherChromaticities are of Adobe RGB.
	otherChromaticities = []byte("\x00\x00\x7a\x26\x00\x00\x80\x84" +
		"\x00\x00\xfa\x00\x00\x00\x80\xe8\x00\x00\x52\x08\x00\x01\x15\x58\x00\x00\x3a\x98\x00\x00\x17\x70")
)

func first[T, U any](v T, _ U) T { return v }

// webSafe is a palette of 216 colors.
func webSafe() (p color.Palette) {
	for i := range 216 {
		p = append(p, color.NRGBA{uint8(i / 36 * 51), uint8(i / 6 % 6 * 51), uint8(i % 6 * 51), 255})
	}
	return p
}

// dithered draws an image in black and white.
func dithered(img image.Image) *image.Paletted {
	to := image.NewPaletted(img.Bounds(), color.Palette{color.Black, color.White})
	draw.FloydSteinberg.Draw(to, to.Rect, img, image.Point{})
	return to
}

// withoutFirstControl removes the fcTL before the image of an APNG.
func withoutFirstControl(apng []byte) []byte {
	at := bytes.Index(apng, []byte("fcTL")) - 4
	return slices.Concat(apng[:at], apng[at+12+26:])
}
