package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // for image.Decode
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"slices"
	"time"

	"golang.org/x/image/draw"
	"golang.org/x/image/math/f64"
	_ "golang.org/x/image/webp" // for image.Decode
)

const (
	thumbnailSide       = 256
	maxThumbnailPixels  = 16_000_000 // rendered at a time
	thumbnailPixelBytes = 10         // memory that a pixel stands for, so that decoding takes up to 160 MB
	maxThumbnailScans   = 64         // encoders write about ten; a scan of 80 bytes may take as long as any other
)

// getThumbnail answers GET and HEAD of a thumbnail.
func (s *server) getThumbnail(w *response, r *http.Request) error {
	return s.withImage(w, r, "thumbnail", func(u User) error { return s.serveThumbnail(w, r, u.Avatar) })
}

// serveThumbnail answers with the thumbnail of an image, or with a redirect to the image if it cannot be rendered.
func (s *server) serveThumbnail(w *response, r *http.Request, a Avatar) error {
	thumb, err := s.thumbnail(r.Context(), w.user, a)
	if err != nil {
		return err
	}
	if len(thumb) == 0 {
		s.redirect(w, "avatar", a.Key)
		return nil
	}
	return serveImage(w, r, thumbnailKey(a.Key), http.DetectContentType(thumb), bytes.NewReader(thumb))
}

// thumbnail returns the stored thumbnail of an image, or renders and stores it. It is empty if that fails now.
func (s *server) thumbnail(ctx context.Context, id string, a Avatar) ([]byte, error) {
	thumb, err := readObject(ctx, s.avatars, id, thumbnailKey(a.Key), 0)
	if !errors.Is(err, ErrNotFound) {
		return thumb, err
	}
	rendered, err, _ := s.thumbnails.Do(id+a.Key, func() (any, error) {
		return s.render(context.WithoutCancel(ctx), id, a)
	})
	return rendered.([]byte), err
}

// render renders a thumbnail and stores it, empty if the image cannot be rendered.
func (s *server) render(ctx context.Context, id string, a Avatar) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	wait, cancel := context.WithTimeout(ctx, 2*time.Second) // for room to render
	defer cancel()
	if s.renders.Acquire(wait, 1) != nil {
		return nil, nil
	}
	defer s.renders.Release(1)
	data, err := readObject(ctx, s.avatars, id, a.Key, a.Size)
	if err != nil {
		return nil, err
	}
	var thumb []byte // stays empty for an image that cannot be rendered
	if img, cost, err := prepareThumbnail(data); err == nil {
		if s.pixels.Acquire(wait, cost) != nil {
			return nil, nil
		}
		defer s.pixels.Release(cost)
		thumb, _ = img.thumbnail(ctx)
	}
	if err := s.avatars.Put(ctx, id, thumbnailKey(a.Key), http.DetectContentType(thumb), thumb); err != nil {
		s.log.Warn("thumbnail not stored", "user", id, "key", a.Key, "error", err)
		return thumb, nil
	}
	u, err := s.users.Get(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && u.Avatar.Key != a.Key {
		s.discard(id, a.Key) // the image was replaced meanwhile
		return nil, ErrNotFound
	}
	return thumb, nil
}

// prepareThumbnail returns, without decoding, what is decoded of an image, and its cost. It returns an
// error for an image that costs more than maxThumbnailPixels, for animated WebP, and for an image whose
// colors would be wrong.
func prepareThumbnail(data []byte) (w walker, cost int64, err error) {
	w = walker{data: data, firstFrame: true}
	if err := w.run(); err != nil {
		return walker{}, 0, err
	}
	w.data = w.clean()
	if w.mediaType == "image/gif" { // browsers enlarge the screen for the frame; Go refuses it
		// #nosec G115 -- at most 65,535
		screen := []byte{byte(w.width), byte(w.width >> 8), byte(w.height), byte(w.height >> 8)}
		w.data = slices.Concat(w.data[:6], screen, w.data[10:])
	}
	cost = w.cost()
	wrongColors := w.misleading || w.space == "CMYK" && len(w.profile) > 0 || len(w.profile) > maxProfile
	if cost > maxThumbnailPixels || w.scans > maxThumbnailScans || w.flags&webpFlags["ANIM"] != 0 || wrongColors {
		return walker{}, 0, errors.New("the image cannot be rendered")
	}
	return w, cost, nil
}

// thumbnail returns the middle square of an image, upright, as a JPEG, or as a PNG if pixels are
// transparent. Scaling takes up to 13 MB.
func (w *walker) thumbnail(ctx context.Context) (thumb []byte, err error) {
	defer func() {
		if fault := recover(); fault != nil { // in a decoder
			thumb, err = nil, fmt.Errorf("decoding: %v", fault)
		}
	}()
	img, _, err := image.Decode(contextReader{ctx, bytes.NewReader(w.data)})
	if err != nil {
		return nil, err
	}
	side := min(w.width, w.height)
	corner := image.Pt((w.width-side)/2, (w.height-side)/2)
	// Less than the square for a frame of a GIF.
	part := img.Bounds().Intersect(image.Rect(0, 0, side, side).Add(corner))
	// The averages of whole pixels first: the filter is 10 times as slow.
	small := reduce(img, part, max(1, side/(2*thumbnailSide)))
	switch small := small.(type) {
	case *image.YCbCr:
		if w.mediaType == "image/webp" {
			widenRange(small)
		}
	case *image.NYCbCrA:
		widenRange(&small.YCbCr)
	}
	scaled := image.NewRGBA(image.Rect(0, 0, thumbnailSide, thumbnailSide))
	scale := func(p image.Point) image.Point { return p.Sub(corner).Mul(thumbnailSide).Div(side) }
	target := image.Rectangle{scale(part.Min), scale(part.Max)}
	// The kernel widens as the image shrinks, so that every pixel counts, by its alpha.
	draw.BiLinear.Scale(scaled, target, small, small.Bounds(), draw.Src, nil)
	turned := image.NewRGBA(scaled.Rect)
	draw.NearestNeighbor.Transform(turned, upright[w.orientation], scaled, scaled.Rect, draw.Src, nil)
	return w.encode(turned)
}

// encode encodes a thumbnail, with the color profile of its image: one for RGB, or one for gray of a gray image.
// Browsers ignore others.
func (w *walker) encode(thumb *image.RGBA) ([]byte, error) {
	space := ""
	if len(w.profile) > 0 {
		space = string(w.profile[16:20]) // ICC.1:2022, section 7.2.8
	}
	gray := space == "GRAY" && w.space == "GRAY"
	profile := w.profile
	if space != "RGB " && !gray {
		profile = nil
	}
	var b bytes.Buffer
	var err error
	switch {
	case !thumb.Opaque() && gray:
		return nil, errors.New("image/png does not write transparent gray")
	case !thumb.Opaque():
		err = png.Encode(&b, thumb)
	case gray:
		img := image.NewGray(thumb.Rect)
		draw.Draw(img, img.Rect, thumb, image.Point{}, draw.Src)
		err = jpeg.Encode(&b, img, &jpeg.Options{Quality: 85})
	default:
		err = jpeg.Encode(&b, thumb, &jpeg.Options{Quality: 85})
	}
	return withProfile(b.Bytes(), profile), err
}

// upright maps a thumbnail onto the upright one, by EXIF orientation (EXIF 2.32, section 4.6.4), 0 if unknown.
var upright = [...]f64.Aff3{
	{1, 0, 0, 0, 1, 0}, {1, 0, 0, 0, 1, 0}, {-1, 0, thumbnailSide, 0, 1, 0},
	{-1, 0, thumbnailSide, 0, -1, thumbnailSide}, {1, 0, 0, 0, -1, thumbnailSide}, {0, 1, 0, 1, 0, 0},
	{0, -1, thumbnailSide, 1, 0, 0}, {0, -1, thumbnailSide, -1, 0, thumbnailSide}, {0, 1, 0, -1, 0, thumbnailSide},
}

// A contextReader ends with its context, and so does what decodes from it.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	return n, cmp.Or(c.ctx.Err(), err)
}

// reduce returns a part of a decoded image at 1/k of its size. Each pixel is the average of k × k
// pixels, fewer at the right and lower edge. Colors count by their alpha.
func reduce(img image.Image, part image.Rectangle, k int) image.Image {
	size := image.Rect(0, 0, (part.Dx()+k-1)/k, (part.Dy()+k-1)/k)
	switch img := img.(type) {
	case *image.Gray:
		small := image.NewGray(size)
		reducePlane(small.Pix, img.Pix[img.PixOffset(part.Min.X, part.Min.Y):], img.Stride, part.Size(), k)
		return small
	case *image.YCbCr:
		small := image.NewYCbCr(size, img.SubsampleRatio)
		y, c := img.YOffset(part.Min.X, part.Min.Y), img.COffset(part.Min.X, part.Min.Y)
		across := img.YStride / img.CStride // pixels of a sample of Cb or Cr
		down := len(img.Y) * img.CStride / (img.YStride * len(img.Cb))
		colors := image.Pt((part.Dx()+across-1)/across, (part.Dy()+down-1)/down)
		reducePlane(small.Y, img.Y[y:], img.YStride, part.Size(), k)
		reducePlane(small.Cb, img.Cb[c:], img.CStride, colors, k)
		reducePlane(small.Cr, img.Cr[c:], img.CStride, colors, k)
		return small
	case *image.NYCbCrA:
		small := image.NewNYCbCrA(size, img.SubsampleRatio)
		small.YCbCr = *reduce(&img.YCbCr, part, k).(*image.YCbCr)
		reducePlane(small.A, img.A[img.AOffset(part.Min.X, part.Min.Y):], img.AStride, part.Size(), k)
		return small
	}
	return reducePixels(img, part, k, size)
}

// reducePlane reduces a plane of one byte a sample.
func reducePlane(small, plane []byte, stride int, size image.Point, k int) {
	width := (size.X + k - 1) / k
	sums := make([]uint32, width)
	for top := 0; top < size.Y; top += k {
		clear(sums)
		rows := min(k, size.Y-top)
		for y := top; y < top+rows; y++ {
			row := plane[y*stride:][:size.X]
			for x := range sums {
				for _, sample := range row[x*k : min((x+1)*k, size.X)] {
					sums[x] += uint32(sample)
				}
			}
		}
		for x, sum := range sums {
			n := uint32(rows * min(k, size.X-x*k)) // #nosec G115 -- at most k × k
			small[x] = byte((sum + n/2) / n)       // #nosec G115 -- an average of bytes
		}
		small = small[width:]
	}
}

// A pixelSum adds up pixels: red, green and blue multiplied by alpha, and alpha.
type pixelSum struct{ red, green, blue, alpha uint32 }

// reducePixels reduces an image whose channels are not in planes.
func reducePixels(img image.Image, part image.Rectangle, k int, size image.Rectangle) *image.NRGBA {
	small := image.NewNRGBA(size)
	sums := make([]pixelSum, size.Dx())
	readRow := rowReader(img, part)
	for top := 0; top < part.Dy(); top += k {
		clear(sums)
		rows := min(k, part.Dy()-top)
		for y := top; y < top+rows; y++ {
			row := readRow(part.Min.Y + y)
			for x := range sums {
				sums[x].add(row[4*k*x : min(4*k*(x+1), len(row))])
			}
		}
		pix := small.Pix[top/k*small.Stride:]
		for x, sum := range sums {
			n := uint32(rows * min(k, part.Dx()-x*k)) // #nosec G115 -- at most k × k
			alpha := max(sum.alpha, 1)
			for i, total := range []uint32{sum.red, sum.green, sum.blue} {
				pix[4*x+i] = byte((total + alpha/2) / alpha) // #nosec G115 -- an average of bytes
			}
			pix[4*x+3] = byte((sum.alpha + n/2) / n) // #nosec G115 -- an average of bytes
		}
	}
	return small
}

func (s *pixelSum) add(pixels []byte) {
	var red, green, blue, sum uint32
	for ; len(pixels) >= 4; pixels = pixels[4:] {
		alpha := uint32(pixels[3])
		red += uint32(pixels[0]) * alpha
		green += uint32(pixels[1]) * alpha
		blue += uint32(pixels[2]) * alpha
		sum += alpha
	}
	s.red += red
	s.green += green
	s.blue += blue
	s.alpha += sum
}

// rowReader returns a function that returns a row of pixels as red, green, blue and alpha, until its
// next call. Decoders return RGBA only for opaque images.
func rowReader(img image.Image, part image.Rectangle) func(y int) []byte {
	row := image.NewNRGBA(image.Rect(part.Min.X, 0, part.Max.X, 1))
	width := len(row.Pix)
	switch img := img.(type) {
	case *image.RGBA:
		return func(y int) []byte { return img.Pix[img.PixOffset(part.Min.X, y):][:width] }
	case *image.NRGBA:
		return func(y int) []byte { return img.Pix[img.PixOffset(part.Min.X, y):][:width] }
	case *image.Paletted:
		var palette [256][4]byte
		for i, c := range img.Palette {
			p := color.NRGBAModel.Convert(c).(color.NRGBA)
			palette[i] = [4]byte{p.R, p.G, p.B, p.A}
		}
		return func(y int) []byte {
			for x, index := range img.Pix[img.PixOffset(part.Min.X, y):][:part.Dx()] {
				*(*[4]byte)(row.Pix[4*x:]) = palette[index]
			}
			return row.Pix
		}
	case *image.CMYK:
		opaque := (*image.RGBA)(row)
		return func(y int) []byte {
			draw.Draw(opaque, opaque.Rect, img, image.Pt(part.Min.X, y), draw.Src)
			return row.Pix
		}
	}
	// 16 bits a channel are rare: ten times as slow.
	return func(y int) []byte {
		for x := part.Min.X; x < part.Max.X; x++ {
			row.Set(x, 0, img.At(x, y))
		}
		return row.Pix
	}
}

// widenRange converts the limited range of a lossy WebP, Y from 16 to 235, Cb and Cr from 16 to 240
// (ITU-R BT.601; RFC 9649, section 2.5), to the full range of a JPEG, which Go assumes.
func widenRange(img *image.YCbCr) {
	widen := func(plane []byte, from, to, levels int) {
		for i, c := range plane {
			plane[i] = byte(min(max((int(c)-from)*255/levels+to, 0), 255))
		}
	}
	widen(img.Y, 16, 0, 219)
	widen(img.Cb, 128, 128, 224)
	widen(img.Cr, 128, 128, 224)
}
