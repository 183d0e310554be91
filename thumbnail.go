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
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/image/draw"
	"golang.org/x/image/math/f64"
	_ "golang.org/x/image/webp" // for image.Decode
)

const (
	renderWait    = 2 * time.Second  // for room to render
	renderTimeout = 10 * time.Second // for a render and its calls to the store

	thumbnailSide    = 256
	thumbnailQuality = 85 // of a JPEG

	// maxThumbnailPixels bounds the cost of the thumbnails that are rendered at a time. A pixel
	// stands for thumbnailPixelBytes of memory, so decoding takes up to 160 MB.
	maxThumbnailPixels  = 16_000_000
	thumbnailPixelBytes = 10

	// maxThumbnailScans bounds the passes over a JPEG's pixels. Encoders write about ten.
	// A scan that changes nothing is 80 bytes long and takes as long as any other.
	maxThumbnailScans = 64
)

// getThumbnail answers GET and HEAD of a thumbnail. What cannot be rendered is a
// redirect to the image.
func (s *server) getThumbnail(w *response, r *http.Request) error {
	for tries := 0; ; tries++ {
		a, err := s.currentImage(w, r, "thumbnail")
		if a == nil {
			return err
		}
		thumb, err := s.thumbnail(r.Context(), w.user, a)
		switch {
		case errors.Is(err, ErrNotFound) && tries < 3: // replaced after the pointer was read
			continue
		case err != nil:
			return err
		case len(thumb) == 0:
			s.redirect(w, s.imageURL(w.user, "avatar", a.Key))
		default:
			serveImage(w, r, strconv.Quote(thumbnailKey(a.Key)), http.DetectContentType(thumb), bytes.NewReader(thumb))
		}
		return nil
	}
}

// thumbnail returns the stored thumbnail of an image, or renders and stores it. It
// is empty if the image cannot be rendered, or not now.
func (s *server) thumbnail(ctx context.Context, id string, a *Avatar) ([]byte, error) {
	thumb, err := readObject(ctx, s.avatars, id, thumbnailKey(a.Key), -1)
	if !errors.Is(err, ErrNotFound) {
		return thumb, err
	}
	rendered := s.thumbnails.DoChan(id+a.Key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renderTimeout)
		defer cancel()
		return s.render(ctx, id, a)
	})
	select {
	case result := <-rendered:
		thumb, _ := result.Val.([]byte)
		return thumb, result.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// render renders a thumbnail and stores it, empty if the image cannot be rendered.
func (s *server) render(ctx context.Context, id string, a *Avatar) ([]byte, error) {
	wait, cancel := context.WithTimeout(ctx, renderWait)
	defer cancel()
	if s.renders.Acquire(wait, 1) != nil {
		return nil, nil
	}
	defer s.renders.Release(1)
	data, err := readObject(ctx, s.avatars, id, a.Key, a.Size)
	if err != nil {
		return nil, err
	}
	var thumb []byte
	if t, err := prepareThumbnail(data); err == nil {
		if s.pixels.Acquire(wait, t.cost) != nil {
			return nil, nil
		}
		defer s.pixels.Release(t.cost)
		thumb, _ = t.render(ctx)
	}
	if err := s.avatars.Put(ctx, id, thumbnailKey(a.Key), http.DetectContentType(thumb), thumb); err != nil {
		s.log.Warn("thumbnail not stored", "user", id, "key", a.Key, "error", err)
		return thumb, nil
	}
	u, err := s.users.Get(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && (u.Avatar == nil || u.Avatar.Key != a.Key) {
		s.discard(id, a.Key) // the image was replaced meanwhile
		return nil, ErrNotFound
	}
	return thumb, nil
}

// readObject reads a stored object of size bytes, -1 if unknown.
func readObject(ctx context.Context, avatars Avatars, id, key string, size int64) ([]byte, error) {
	body, err := avatars.Get(ctx, id, key, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if size < 0 {
		return io.ReadAll(body)
	}
	data := make([]byte, size)
	_, err = io.ReadFull(body, data)
	return data, err
}

// A thumbnail is what is rendered of an image.
type thumbnail struct {
	data        []byte // of an animation, its first frame
	screen      image.Rectangle
	orientation byte
	cost        int64 // of maxThumbnailPixels
}

// prepareThumbnail finds what is rendered of an image, and its cost: its pixels, or more
// if decoding takes more than thumbnailPixelBytes for each. It does not decode the image.
// It returns an error for images that cost too much, and for animated WebP.
func prepareThumbnail(data []byte) (thumbnail, error) {
	w := walker{data: data, firstFrame: true}
	if err := w.run(); err != nil {
		return thumbnail{}, err
	}
	clean := w.clean()
	if w.mediaType == "image/gif" { // browsers enlarge the screen for the frame; Go refuses it
		screen := []byte{byte(w.width), byte(w.width >> 8), byte(w.height), byte(w.height >> 8)} // #nosec G115 -- at most 65,535
		clean = slices.Concat(clean[:6], screen, clean[10:])
	}
	pixels := int64(w.width) * int64(w.height)
	memory := int64(w.decoded * float64(pixels))
	if w.mediaType == "image/webp" && string(data[12:16]) != "VP8 " {
		// Huffman trees: up to 256 bytes for each byte that describes them, and 52 kB for
		// each of the 2,600 groups that the decoder accepts.
		memory += min(256*int64(len(data)), 2600*52_000)
	}
	t := thumbnail{clean, image.Rect(0, 0, w.width, w.height), w.orientation, max(pixels, memory/thumbnailPixelBytes)}
	if t.cost > maxThumbnailPixels || w.scans > maxThumbnailScans || w.flags&webpFlags["ANIM"] != 0 {
		return thumbnail{}, errors.New("the image cannot be rendered")
	}
	return t, nil
}

// render returns the middle square of an image, upright, as a JPEG, or as a PNG if pixels are
// transparent. Color profiles are not applied. Scaling takes up to 33 MB.
func (t thumbnail) render(ctx context.Context) (thumb []byte, err error) {
	defer func() {
		if fault := recover(); fault != nil { // in a decoder
			thumb, err = nil, fmt.Errorf("decoding: %v", fault)
		}
	}()
	img, err := t.decode(contextReader{ctx, bytes.NewReader(t.data)})
	if err != nil {
		return nil, err
	}
	width, height := t.screen.Dx(), t.screen.Dy()
	side := min(width, height)
	square := image.Rect((width-side)/2, (height-side)/2, (width+side)/2, (height+side)/2)
	// The kernel widens as the image shrinks, so that every pixel counts, by its alpha.
	scaled := image.NewRGBA(image.Rect(0, 0, thumbnailSide, thumbnailSide))
	draw.BiLinear.Scale(scaled, scaled.Rect, img, square, draw.Src, nil)
	if turn, ok := upright[t.orientation]; ok {
		turned := image.NewRGBA(scaled.Rect)
		draw.NearestNeighbor.Transform(turned, turn, scaled, scaled.Rect, draw.Src, nil)
		scaled = turned
	}
	var b bytes.Buffer
	if scaled.Opaque() {
		err = jpeg.Encode(&b, scaled, &jpeg.Options{Quality: thumbnailQuality})
	} else {
		err = png.Encode(&b, scaled)
	}
	return b.Bytes(), err
}

// decode decodes an image, and a GIF's frame onto its screen.
func (t thumbnail) decode(r io.Reader) (image.Image, error) {
	img, _, err := image.Decode(r)
	if err != nil || img.Bounds() == t.screen {
		return img, err
	}
	screen := image.NewRGBA(t.screen)
	draw.Draw(screen, img.Bounds(), img, img.Bounds().Min, draw.Src)
	return screen, nil
}

// upright maps a thumbnail onto the upright one, by EXIF orientation (EXIF 2.32, section 4.6.4).
var upright = map[byte]f64.Aff3{
	2: {-1, 0, thumbnailSide, 0, 1, 0},
	3: {-1, 0, thumbnailSide, 0, -1, thumbnailSide},
	4: {1, 0, 0, 0, -1, thumbnailSide},
	5: {0, 1, 0, 1, 0, 0},
	6: {0, -1, thumbnailSide, 1, 0, 0},
	7: {0, -1, thumbnailSide, -1, 0, thumbnailSide},
	8: {0, 1, 0, -1, 0, thumbnailSide},
}

// A contextReader ends with its context, and so does what decodes from it.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
