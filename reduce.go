package main

import (
	"image"
	"image/color"
	"image/draw"
)

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
			n := uint32(rows * min(k, size.X-x*k))
			small[x] = byte((sum + n/2) / n)
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
			n := uint32(rows * min(k, part.Dx()-x*k))
			alpha := max(sum.alpha, 1)
			pix[4*x] = byte((sum.red + alpha/2) / alpha)
			pix[4*x+1] = byte((sum.green + alpha/2) / alpha)
			pix[4*x+2] = byte((sum.blue + alpha/2) / alpha)
			pix[4*x+3] = byte((sum.alpha + n/2) / n)
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
