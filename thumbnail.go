package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // for image.Decode
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
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
		encoder := png.Encoder{CompressionLevel: png.BestSpeed} // 8 instead of 35 ms for a photo, 7 % larger
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

// reduce returns an image at 1/k of its size, each pixel the average of k × k, fewer at the right and lower edge.
// It takes what Go's decoders return for the images that are rendered: RGBA and RGBA64 are opaque.
func reduce(img image.Image, k int) image.Image {
	if k == 1 {
		return img
	}
	size := img.Bounds().Size()
	width := (size.X + k - 1) / k
	small := image.Rect(0, 0, width, (size.Y+k-1)/k)
	plane := func(pix []byte, stride, depth int, size image.Point) []byte {
		return averages(size, depth, k, func(row []byte, y int) { copy(row, pix[y*stride:]) })
	}
	pixels := func(pixelSize int, read func(row []byte, y int)) image.Image {
		return &image.RGBA{Pix: averages(size, pixelSize, k, read), Stride: 4 * width, Rect: small}
	}
	switch img := img.(type) {
	case *image.Gray:
		return &image.Gray{Pix: plane(img.Pix, img.Stride, 1, size), Stride: width, Rect: small}
	case *image.Gray16:
		return &image.Gray{Pix: plane(img.Pix, img.Stride, 2, size), Stride: width, Rect: small}
	case *image.YCbCr:
		corner := img.Rect.Max.Sub(image.Pt(1, 1))
		last := img.COffset(corner.X, corner.Y) - img.COffset(img.Rect.Min.X, img.Rect.Min.Y)
		colors := image.Pt(last%img.CStride+1, last/img.CStride+1)
		return &image.YCbCr{
			Y:       plane(img.Y, img.YStride, 1, size),
			Cb:      plane(img.Cb, img.CStride, 1, colors),
			Cr:      plane(img.Cr, img.CStride, 1, colors),
			YStride: width, CStride: (colors.X + k - 1) / k, SubsampleRatio: img.SubsampleRatio, Rect: small,
		}
	case *image.NYCbCrA:
		colors := reduce(&img.YCbCr, k).(*image.YCbCr)
		return &image.NYCbCrA{YCbCr: *colors, A: plane(img.A, img.AStride, 1, size), AStride: width}
	case *image.RGBA:
		return pixels(4, func(row []byte, y int) { copy(row, img.Pix[y*img.Stride:]) })
	case *image.RGBA64:
		return pixels(8, func(row []byte, y int) { copy(row, img.Pix[y*img.Stride:]) })
	case *image.NRGBA:
		return pixels(4, func(row []byte, y int) { premultiply(row, 1, img.Pix[y*img.Stride:]) })
	case *image.NRGBA64:
		return pixels(8, func(row []byte, y int) { premultiply(row, 2, img.Pix[y*img.Stride:]) })
	case *image.Paletted:
		var palette [256]uint32
		for i, c := range img.Palette {
			p := color.RGBAModel.Convert(c).(color.RGBA)
			palette[i] = binary.LittleEndian.Uint32([]byte{p.R, p.G, p.B, p.A})
		}
		return pixels(4, func(row []byte, y int) {
			for x, index := range img.Pix[y*img.Stride:][:size.X] {
				binary.LittleEndian.PutUint32(row[4*x:], palette[index])
			}
		})
	}
	panic(fmt.Sprintf("an image of %T", img))
}

// averages returns the averages of k × k pixels, where k is 2, 4 or 8. A pixel has pixelSize bytes: one channel of
// 8 or 16 bits, or four. read reads a row. All cores share the work: 22 instead of 34 ms for a transparent image.
func averages(size image.Point, pixelSize, k int, read func(row []byte, y int)) []byte {
	parts := make([][]byte, runtime.GOMAXPROCS(0))
	height := (size.Y + k - 1) / k
	var work sync.WaitGroup
	for i := range parts {
		begin, end := height*i/len(parts)*k, min(height*(i+1)/len(parts)*k, size.Y)
		work.Go(func() { parts[i] = averageRows(begin, end, size.X, pixelSize, k, read) })
	}
	work.Wait()
	return slices.Concat(parts...)
}

// averageRows returns the averages of the rows from begin to end.
func averageRows(begin, end, width, pixelSize, k int, read func(row []byte, y int)) []byte {
	block := k * pixelSize
	row := make([]byte, ((width+k-1)/k*block+7)&^7)
	even, odd := make([]uint64, len(row)/8), make([]uint64, len(row)/8) // sums of columns
	mask := ^uint64(0) >> (64 - min(64, 8*block))                       // of a block in eight bytes
	var averages []byte
	for top := begin; top < end; top += k {
		rows := min(k, end-top)
		for y := range rows {
			read(row[:width*pixelSize], top+y)
			addRow(even, odd, row)
		}
		for left := 0; left < width; left += k {
			var e, o uint64
			for i := left * pixelSize; i < left*pixelSize+block; i += 8 {
				e += even[i/8] >> (i % 8 * 8) & mask
				o += odd[i/8] >> (i % 8 * 8) & mask
			}
			averages = appendAverages(averages, e, o, pixelSize, min(k, width-left)*rows)
		}
		clear(even)
		clear(odd)
	}
	return averages
}

// lanes are the bytes with an even index in eight bytes. Each has room for a sum of 16 bits.
const lanes = 0x00ff_00ff_00ff_00ff

// addRow adds the bytes of a row with an even and an odd index. Eight at a time take a third of the time of one by one.
func addRow(even, odd []uint64, row []byte) {
	odd = odd[:len(even)]
	for i := range even {
		eight := binary.LittleEndian.Uint64(row)
		row = row[8:]
		even[i] += eight & lanes
		odd[i] += eight >> 8 & lanes
	}
}

// appendAverages appends the averages of the channels of n pixels.
func appendAverages(averages []byte, even, odd uint64, pixelSize, n int) []byte {
	// #nosec G115 -- n is at most 64, and a sum has 16 bits
	average := func(sum uint64) byte { return byte((uint32(sum&0xffff) + uint32(n)/2) / uint32(n)) }
	sum := func(lanes uint64) uint64 { return lanes * 0x0001_0001_0001_0001 >> 48 }
	switch pixelSize {
	case 1:
		return append(averages, average(sum(even+odd)))
	case 2:
		return append(averages, average(sum(even)))
	case 4:
		even, odd = even+even>>32, odd+odd>>32
		return append(averages, average(even), average(odd), average(even>>16), average(odd>>16))
	}
	return append(averages, average(even), average(even>>16), average(even>>32), average(even>>48))
}

// premultiply copies a row and multiplies its colors by alpha, so that they count by it. A channel has depth bytes, of
// which the first counts.
func premultiply(row []byte, depth int, from []byte) {
	copy(row, from)
	for red := 0; red < len(row); red += 4 * depth {
		alpha := uint32(row[red+3*depth])
		if alpha == 255 {
			continue
		}
		alpha += alpha >> 7                                                 // of 256
		weigh := func(i int) { row[i] = byte(uint32(row[i]) * alpha >> 8) } // #nosec G115 -- at most 255
		weigh(red)
		weigh(red + depth)
		weigh(red + 2*depth)
	}
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
