package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
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
	cmykProfile   = "CMYK with a color profile"
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
	for _, kind := range []string{animatedWebP, tooManyPixels, tooMuchMemory, manyScans, notDecodable, cmykProfile, largeProfile, grayProfileA, otherGamma, otherSpace, hiddenDefault} {
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
		client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
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
	context.drawImage(img, Math.floor((img.naturalWidth - side) / 2), Math.floor((img.naturalHeight - side) / 2), side, side, 0, 0, n, n);
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
			c := color.NRGBA{uint8(127 + 120*math.Sin(5*u)), uint8(127 + 120*math.Cos(4*v+u)), uint8(127 * (u + v)), 255}
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
	g := &gif.GIF{Image: frames, Delay: make([]int, len(frames)), Config: image.Config{Width: screen.Dx(), Height: screen.Dy()}}
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
	apng, cmyk := file("images/png-apng.png"), file("images/jpg-cmyk.jpg")
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
		{name: "JPEG gray 1500", data: encodedJPEG(redrawn(image.NewGray(image.Rect(0, 0, 1500, 1501)), scene(1500, 1501)))},
		{name: "JPEG 4000 x 3000", data: encodedJPEG(scene(4000, 3000))},
		{name: "JPEG 1031 x 2063", data: encodedJPEG(scene(1031, 2063))},
		{name: "JPEG noise", data: encodedJPEG(noise(1200, 900)), tolerance: 6},
		{name: "JPEG progressive", data: file("progressive.jpg")},
		{name: "JPEG progressive 4:4:4", data: file("colors/progressive-444.jpg")},
		{name: "JPEG progressive CMYK", data: file("progressive-cmyk.jpg")},
		{name: "GIF", data: encodedGIF(rect, palette)},
		{name: "GIF transparent", data: encodedGIF(rect, cut)},
		{name: "GIF animated", data: encodedGIF(rect, palette, cut)},
		{name: "GIF one-bit", data: encodedGIF(image.Rect(0, 0, 1600, 1200), dithered(scene(1600, 1200))), tolerance: 6},
		{name: "WebP lossy", data: file("colors/lossy.webp")},
		{name: "WebP lossy quarters", data: file("colors/lossy-quarters.webp")},
		{name: "WebP lossy alpha", data: file("colors/lossy-alpha.webp")},
		{name: "WebP lossless", data: file("colors/lossless.webp")},
		{name: "WebP palette", data: file("colors/palette.webp")},
		{name: "WebP lossy P3", data: webpFile(webpCanvas(webpFlags["ICCP"], 640, 480), webpChunk("ICCP", rgbProfile(2.2, displayP3)), vp8)},
		{name: "WebP lossless P3", data: webpFile(webpCanvas(webpFlags["ICCP"], 320, 240), webpChunk("ICCP", rgbProfile(2.2, displayP3)), vp8l)},
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
		{name: "PNG alpha swapped", data: withTestProfile(testkit.PNG(faded(scene(400, 300))), rgbProfile(2.2, swappedRGB))},
		{name: "PNG palette swapped", data: withTestProfile(testkit.PNG(palette), rgbProfile(2.2, swappedRGB))},
		{name: "PNG broken profile", data: withTestProfile(pngOfScene, []byte("profile"))},
		{name: "PNG gray profile", data: withTestProfile(pngOfScene, grayProfile(1))},
		{name: "PNG gray, gray profile", data: withTestProfile(testkit.PNG(gray), grayProfile(1))},
		{name: "PNG gray, RGB profile", data: withTestProfile(testkit.PNG(gray), rgbProfile(1, adobeRGB))},
		{name: "PNG gAMA 1/2.2", data: pngWith(chunk("gAMA", []byte("\x00\x00\xb1\x8f")))},
		{name: "PNG sRGB", data: pngWith(chunk("sRGB", []byte{0}))},
		{name: "PNG cICP sRGB", data: pngWith(chunk("cICP", []byte(pngSRGB)))},
		{name: "PNG sRGB's cHRM, gAMA", data: pngWith(chunk("gAMA", []byte("\x00\x00\xb1\x8f")), chunk("cHRM", sRGBChromaticities))},
		{name: "PNG cHRM, gAMA", data: pngWith(chunk("gAMA", []byte("\x00\x00\xb1\x8f")), chunk("cHRM", otherChromaticities)), redirect: otherGamma},
		{name: "PNG gAMA 1, sRGB", data: pngWith(chunk("gAMA", []byte("\x00\x01\x86\xa0")), chunk("sRGB", []byte{0})), redirect: otherGamma},
		{name: "WebP animated", data: file("animated.webp"), redirect: animatedWebP},
		{name: "PNG 4001 x 4000", data: testkit.PNG(image.NewGray(image.Rect(0, 0, 4001, 4000))), redirect: tooManyPixels},
		{name: "JPEG progressive 4:4:4 11 MP", data: patchedSize(file("colors/progressive-444.jpg"), 4000, 2800), redirect: tooMuchMemory},
		{name: "JPEG 65 scans", data: file("images/jpg-65-scans.jpg"), redirect: manyScans},
		{name: "JPEG CMYK, profile", data: withTestProfile(cmyk, iccProfile("CMYK", iccTexts("CMYK")...)), redirect: cmykProfile},
		{name: "JPEG profile of 80 kB", data: withTestProfile(jpg, rgbProfile(2.2, swappedRGB, profileTag{"prvt", string(make([]byte, 80_000))})), redirect: largeProfile},
		{name: "PNG gray alpha, profile", data: withTestProfile(grayAlpha, grayProfile(1)), redirect: grayProfileA},
		{name: "PNG gAMA 1", data: file("colors/gamma-1.0.png"), redirect: otherGamma},
		{name: "PNG gAMA 1/1.8", data: pngWith(chunk("gAMA", []byte("\x00\x00\xd9\x03"))), redirect: otherGamma},
		{name: "PNG cICP P3", data: pngWith(chunk("cICP", []byte("\x0c\x0d\x00\x01"))), redirect: otherSpace},
		{name: "APNG without its image", data: withoutFirstControl(apng), redirect: hiddenDefault},
	}
	for o := 2; o <= 8; o++ {
		exif := jpegSegment(0xe1, exifHeader, string(exifOrientation(byte(o))))
		images = append(images, &shownImage{name: fmt.Sprintf("JPEG orientation %d", o), data: slices.Concat(jpg[:2], exif, jpg[2:])})
	}
	for line := range strings.Lines(string(file("images/INDEX.tsv"))) {
		if field := strings.Split(line, "\t"); field[1] == "200" {
			img := &shownImage{name: strings.TrimSuffix(field[0], filepath.Ext(field[0])), data: file("images/" + field[0]), tolerance: 6}
			clean, _, _ := cleanImage(img.data)
			if _, _, err := image.Decode(bytes.NewReader(clean)); img.name == "webp-anim" {
				img.redirect = animatedWebP
			} else if err != nil && !strings.HasPrefix(img.name, "gif-") {
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
	sRGBChromaticities = []byte("\x00\x00\x7a\x26\x00\x00\x80\x84\x00\x00\xfa\x00\x00\x00\x80\xe8\x00\x00\x75\x30\x00\x00\xea\x60\x00\x00\x3a\x98\x00\x00\x17\x70")
	// otherChromaticities are of Adobe RGB.
	otherChromaticities = []byte("\x00\x00\x7a\x26\x00\x00\x80\x84\x00\x00\xfa\x00\x00\x00\x80\xe8\x00\x00\x52\x08\x00\x01\x15\x58\x00\x00\x3a\x98\x00\x00\x17\x70")
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
