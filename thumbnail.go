package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // for image.Decode
	"image/jpeg"
	"image/png"
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
	thumbnailPixelBytes = 10         // of memory a pixel, so that decoding takes up to 160 MB
	maxThumbnailScans   = 64         // encoders write about ten; a small one may take long
)

// getThumbnail answers GET and HEAD of a thumbnail.
func (s *server) getThumbnail(w *response, r *http.Request) error {
	return s.withImage(w, r, "thumbnail", func(u User) error { return s.serveThumbnail(w, r, u.Avatar) })
}

// serveThumbnail answers with the thumbnail of an image, or with a redirect to the image.
func (s *server) serveThumbnail(w *response, r *http.Request, a Avatar) error {
	thumb, err := s.thumbnail(r.Context(), w.user, a)
	if err != nil {
		return err
	}
	if len(thumb) == 0 {
		s.redirect(w, "avatar", a.Key)
		return nil
	}
	mediaType := http.DetectContentType(thumb)
	return w.serveImage(r, thumbnailKey(a.Key), mediaType, int64(len(thumb)), inMemory(thumb))
}

// thumbnail returns the stored thumbnail of an image, or renders it. It is empty if that fails.
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
		if !s.pixels.TryAcquire(cost) && s.pixels.Acquire(wait, cost) != nil {
			return nil, nil
		}
		defer s.pixels.Release(cost)
		thumb, _ = img.thumbnail()
	}
	return thumb, s.storeThumbnail(ctx, id, a.Key, thumb)
}

// storeThumbnail stores a thumbnail. It returns ErrNotFound if the image was replaced meanwhile.
func (s *server) storeThumbnail(ctx context.Context, id, key string, thumb []byte) error {
	mediaType := http.DetectContentType(thumb)
	if err := s.avatars.Put(ctx, id, thumbnailKey(key), mediaType, thumb); err != nil {
		s.log.Warn("thumbnail not stored", "user", id, "key", key, "error", err)
		return nil // it is rendered again
	}
	u, err := s.users.Get(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && u.Avatar.Key != key {
		s.discard(id, key)
		return ErrNotFound
	}
	return nil
}

// prepareThumbnail returns, without decoding, what is decoded of an image, and its cost. It returns
// an error if that is over maxThumbnailPixels, if WebP is animated, or if colors would be wrong.
func prepareThumbnail(data []byte) (w walker, cost int64, err error) {
	w = walker{data: data}
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
	costly := cost > maxThumbnailPixels || w.scans > maxThumbnailScans
	animatedWebP := w.flags&webpFlags["ANIM"] != 0
	if costly || animatedWebP || w.misleading || len(w.profile) > maxProfile {
		return walker{}, 0, errors.New("the image cannot be rendered")
	}
	return w, cost, nil
}

// thumbnail returns the middle square of an image, upright, as a JPEG, or as a PNG if pixels are
// transparent. Scaling takes up to 7 MB.
func (w *walker) thumbnail() (thumb []byte, err error) {
	defer func() {
		if fault := recover(); fault != nil { // in a decoder
			thumb, err = nil, fmt.Errorf("decoding: %v", fault)
		}
	}()
	img, _, err := image.Decode(bytes.NewReader(w.data))
	if err != nil {
		return nil, err
	}
	return w.encode(w.scale(img))
}

// scale returns the middle square of a decoded image, upright.
func (w *walker) scale(img image.Image) *image.RGBA {
	side := min(w.width, w.height)
	square := image.Rect(0, 0, side, side).Add(image.Pt((w.width-side)/2, (w.height-side)/2))
	// Less than the square for a frame of a GIF.
	part := img.(interface {
		SubImage(image.Rectangle) image.Image
	}).SubImage(square)
	// The averages of whole pixels first: the filter is 20 times as slow.
	k := 1
	for k < 8 && side/k >= 640 {
		k *= 2
	}
	small := reduce(part, k)
	if w.mediaType == "image/webp" {
		widenRange(small)
	}
	scaled := image.NewRGBA(image.Rect(0, 0, thumbnailSide, thumbnailSide))
	scale := func(p image.Point) image.Point { return p.Sub(square.Min).Mul(thumbnailSide).Div(side) }
	target := image.Rectangle{scale(part.Bounds().Min), scale(part.Bounds().Max)}
	// The kernel widens as the image shrinks, so that every pixel counts, by its alpha.
	draw.BiLinear.Scale(scaled, target, small, small.Bounds(), draw.Src, nil)
	turned := image.NewRGBA(scaled.Rect)
	draw.NearestNeighbor.Transform(turned, upright[w.orientation], scaled, scaled.Rect, draw.Src, nil)
	return turned
}

// encode encodes a thumbnail, gray or in color as its image, with the color profile of the image.
func (w *walker) encode(thumb *image.RGBA) ([]byte, error) {
	var b bytes.Buffer
	var err error
	switch {
	case !thumb.Opaque() && w.gray && len(w.profile) > 0:
		return nil, errors.New("image/png does not write transparent gray")
	case !thumb.Opaque():
		encoder := png.Encoder{CompressionLevel: png.BestSpeed} // 8, not 35 ms; 7 % larger
		err = encoder.Encode(&b, thumb)
	case w.gray:
		img := image.NewGray(thumb.Rect)
		draw.Draw(img, img.Rect, thumb, image.Point{}, draw.Src)
		err = jpeg.Encode(&b, img, &jpeg.Options{Quality: 85})
	default:
		err = jpeg.Encode(&b, thumb, &jpeg.Options{Quality: 85})
	}
	return withProfile(b.Bytes(), w.profile), err
}

// upright turns a thumbnail by EXIF orientation (EXIF 2.32, section 4.6.4), 0 if unknown.
var upright = [...]f64.Aff3{
	{1, 0, 0, 0, 1, 0}, {1, 0, 0, 0, 1, 0}, {-1, 0, 256, 0, 1, 0}, {-1, 0, 256, 0, -1, 256},
	{1, 0, 0, 0, -1, 256}, {0, 1, 0, 1, 0, 0}, {0, -1, 256, 1, 0, 0}, {0, -1, 256, -1, 0, 256},
	{0, 1, 0, -1, 0, 256},
}

// widenRange converts the limited range of a lossy WebP, Y from 16 to 235, Cb and Cr from 16 to 240
// (ITU-R BT.601; RFC 9649, section 2.5), to the full range of a JPEG, which Go assumes.
func widenRange(img image.Image) {
	widen := func(plane []byte, levels int) {
		for i, c := range plane {
			full := ((int(c)-16)*255 + levels/2) / levels
			plane[i] = byte(min(max(full, 0), 255))
		}
	}
	switch img := img.(type) {
	case *image.YCbCr:
		widen(img.Y, 219)
		widen(img.Cb, 224)
		widen(img.Cr, 224)
	case *image.NYCbCrA:
		widenRange(&img.YCbCr)
	}
}
