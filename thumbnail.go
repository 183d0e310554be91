package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"
)

const (
	renderWait    = 2 * time.Second  // for room to render
	renderTimeout = 10 * time.Second // for a render and its calls to the store

	thumbnailSide    = 256
	thumbnailQuality = 85

	// maxThumbnailPixels bounds what thumbnailCost returns for an image that is rendered.
	maxThumbnailPixels = 16_000_000

	// thumbnailPixelBytes is the memory that one pixel of thumbnailCost stands for:
	// 160 MB for maxThumbnailPixels.
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
			return nil
		}
		serveImage(w, r, strconv.Quote(thumbnailKey(a.Key)), http.DetectContentType(thumb), bytes.NewReader(thumb))
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
	thumbType := a.Type
	if pixels, err := thumbnailCost(a.Type, data); err == nil && pixels <= maxThumbnailPixels {
		if s.pixels.Acquire(wait, pixels) != nil {
			return nil, nil
		}
		defer s.pixels.Release(pixels)
		if t, mediaType, err := renderThumbnail(ctx, a.Type, data); err == nil {
			thumb, thumbType = t, mediaType
		}
	}
	if err := s.avatars.Put(ctx, id, thumbnailKey(a.Key), thumbType, thumb); err != nil {
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
	body, err := avatars.Get(ctx, id, key, 0, size)
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

// errNotRenderable is the error for images that have no thumbnail: animated WebP, images
// of more than 16 megapixels or whose decoding takes the memory of that many, and
// images that Go's decoders refuse.
var errNotRenderable = errors.New("the image cannot be rendered")

// thumbnailCost returns how many pixels of maxThumbnailPixels rendering the image takes:
// its own, or more if decoding takes more than thumbnailPixelBytes for each. It does
// not decode the image.
func thumbnailCost(mediaType string, data []byte) (pixels int64, err error) {
	_, _, pixels, err = inspectForThumbnail(mediaType, data)
	return pixels, err
}

// inspectForThumbnail returns the part of an image that is rendered: of a GIF, its first
// frame. The walk is the one that cleaned the image, so both find the same frame.
func inspectForThumbnail(mediaType string, data []byte) (clean []byte, info imageInfo, pixels int64, err error) {
	i := slices.IndexFunc(imageFormats, func(f imageFormat) bool { return f.walk != nil && f.mediaType == mediaType && hasMagic(data, f.magic) })
	switch {
	case i < 0:
		err = fmt.Errorf("%q is not its type", mediaType)
	case mediaType == "image/gif":
		if clean, info, err = walkGIF(data, 1); err == nil {
			// The screen that browsers draw on. Go refuses a frame beyond it.
			size := binary.LittleEndian.AppendUint16(nil, uint16(info.width))
			size = binary.LittleEndian.AppendUint16(size, uint16(info.height))
			clean = slices.Concat(clean[:6], size, clean[10:])
		}
	default:
		clean, info, err = imageFormats[i].walk(data)
	}
	if err != nil {
		return nil, info, 0, fmt.Errorf("%w: %v", errNotRenderable, err)
	}
	own := int64(info.width) * int64(info.height)
	memory := int64(info.decoded * float64(own))
	if mediaType == "image/webp" && !bytes.HasPrefix(data[12:], []byte("VP8 ")) {
		// Huffman trees: up to 256 bytes for each byte that describes them, and 52 kB for
		// each of the 2,600 groups that the decoder accepts.
		memory += min(256*int64(len(data)), 2600*52_000)
	}
	pixels = max(own, memory/thumbnailPixelBytes)
	switch {
	case pixels > maxThumbnailPixels:
		err = fmt.Errorf("%w: it takes the memory of %d pixels", errNotRenderable, pixels)
	case info.scans > maxThumbnailScans:
		err = fmt.Errorf("%w: it has %d scans", errNotRenderable, info.scans)
	case info.animated && mediaType == "image/webp":
		err = fmt.Errorf("%w: it is an animated WebP", errNotRenderable)
	}
	return clean, info, pixels, err
}

// renderThumbnail renders an image as 256 × 256 pixels: its middle square, upright, scaled
// down by averaging areas, or up by interpolation. The result is a JPEG, or a PNG if
// it has transparent pixels. An animation is rendered as its first frame. Color profiles are
// not applied. Errors are errNotRenderable, or the context's. Decoding takes up to 160 MB,
// scaling up to 33 MB.
func renderThumbnail(ctx context.Context, mediaType string, data []byte) (thumb []byte, thumbType string, err error) {
	defer func() {
		if fault := recover(); fault != nil { // in a decoder
			thumb, thumbType, err = nil, "", fmt.Errorf("%w: %v", errNotRenderable, fault)
		}
	}()
	data, info, _, err := inspectForThumbnail(mediaType, data)
	if err != nil {
		return nil, "", err
	}
	img, err := decodeForThumbnail(contextReader{ctx, bytes.NewReader(data)}, mediaType, info)
	if ctx.Err() != nil {
		return nil, "", ctx.Err()
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: %v", errNotRenderable, err)
	}
	bounds := img.Bounds()
	side := min(bounds.Dx(), bounds.Dy())
	corner := bounds.Min.Add(image.Pt((bounds.Dx()-side)/2, (bounds.Dy()-side)/2))
	square := image.Rectangle{corner, corner.Add(image.Pt(side, side))}
	// The kernel widens as the image shrinks, so that every pixel counts. It works on
	// colors multiplied by alpha.
	scaled := image.NewRGBA(image.Rect(0, 0, thumbnailSide, thumbnailSide))
	draw.BiLinear.Scale(scaled, scaled.Rect, img, square, draw.Src, nil)
	scaled = upright(scaled, info.orientation)
	var b bytes.Buffer
	if scaled.Opaque() {
		err = jpeg.Encode(&b, scaled, &jpeg.Options{Quality: thumbnailQuality})
		return b.Bytes(), "image/jpeg", err
	}
	err = png.Encode(&b, scaled)
	return b.Bytes(), "image/png", err
}

// decodeForThumbnail decodes an image, and a GIF's frame onto its screen.
func decodeForThumbnail(r io.Reader, mediaType string, info imageInfo) (image.Image, error) {
	switch mediaType {
	case "image/png":
		return png.Decode(r)
	case "image/jpeg":
		return jpeg.Decode(r)
	case "image/webp":
		return webp.Decode(r)
	}
	frame, err := gif.Decode(r)
	screen := image.Rect(0, 0, info.width, info.height)
	if err != nil || frame.Bounds() == screen {
		return frame, err
	}
	canvas := image.NewRGBA(screen)
	draw.Draw(canvas, frame.Bounds(), frame, frame.Bounds().Min, draw.Src)
	return canvas, nil
}

// upright turns a square as its EXIF orientation says (EXIF 2.32, section 4.6.4).
func upright(img *image.RGBA, orientation byte) *image.RGBA {
	if orientation < 2 {
		return img
	}
	turned := image.NewRGBA(img.Rect)
	last := img.Rect.Dx() - 1
	for y := range last + 1 {
		for x := range last + 1 {
			fromX, fromY := x, y
			if orientation >= 5 {
				fromX, fromY = y, x
			}
			switch orientation {
			case 2, 8:
				fromX = last - fromX
			case 4, 6:
				fromY = last - fromY
			case 3, 7:
				fromX, fromY = last-fromX, last-fromY
			}
			turned.SetRGBA(x, y, img.RGBAAt(fromX, fromY))
		}
	}
	return turned
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
