package main

import (
	"encoding/binary"
	"image"
	"image/color"
)

// reduce returns a part of a decoded image at 1/k of its size, k up to 16. Each pixel is the average of
// k × k, the last of a row or column of fewer. Colors of images with alpha count by it.
func reduce(img image.Image, part image.Rectangle, k int) image.Image {
	size := image.Rect(0, 0, (part.Dx()+k-1)/k, (part.Dy()+k-1)/k)
	switch img := img.(type) {
	case *image.Gray:
		small := image.NewGray(size)
		reducePlane(small.Pix, img.Pix[img.PixOffset(part.Min.X, part.Min.Y):], img.Stride, part, 1, 1, k)
		return small
	case *image.YCbCr:
		small := image.NewYCbCr(size, img.SubsampleRatio)
		y, c := img.YOffset(part.Min.X, part.Min.Y), img.COffset(part.Min.X, part.Min.Y)
		across, down := img.YStride/img.CStride, len(img.Y)*img.CStride/(img.YStride*len(img.Cb)) // pixels for a sample of Cb or Cr
		reducePlane(small.Y, img.Y[y:], img.YStride, part, 1, 1, k)
		reducePlane(small.Cb, img.Cb[c:], img.CStride, part, across, down, k)
		reducePlane(small.Cr, img.Cr[c:], img.CStride, part, across, down, k)
		return small
	case *image.NYCbCrA:
		a := img.AOffset(part.Min.X, part.Min.Y)
		small := &image.NYCbCrA{YCbCr: *reduce(&img.YCbCr, part, k).(*image.YCbCr), A: make([]byte, size.Dx()*size.Dy()), AStride: size.Dx()}
		reducePlane(small.A, img.A[a:], img.AStride, part, 1, 1, k)
		return small
	}
	return reducePixels(img, part, k, size)
}

// reducePlane reduces samples of a byte, each of which stands for across × down pixels.
func reducePlane(small, pix []byte, stride int, part image.Rectangle, across, down, k int) {
	width, height := (part.Dx()+across-1)/across, (part.Dy()+down-1)/down
	sums := make([]uint64, (width+k-1)/k)
	for top := 0; top < height; top += k {
		clear(sums)
		rows := min(k, height-top)
		for y := range rows {
			addBlocks(sums, pix[(top+y)*stride:][:width], k)
		}
		for x, sum := range sums {
			n := uint64(rows * min(k, width-x*k))
			small[x] = byte((sum + n/2) / n)
		}
		small = small[len(sums):]
	}
}

// addBlocks adds k pixels or samples of a row to each sum.
func addBlocks[T byte | uint64](sums []uint64, row []T, k int) {
	x, n, sum := 0, 0, uint64(0)
	for _, pixel := range row {
		sum += uint64(pixel)
		if n++; n == k {
			sums[x] += sum
			x, n, sum = x+1, 0, 0
		}
	}
	if n > 0 {
		sums[x] += sum
	}
}

// A pixel is a word of four channels: red, green and blue, multiplied by alpha, and alpha. Each has 16 bits,
// so that an addition of words adds up to 256 pixels.
const (
	channels = 0x00ff00ff00ff00ff // of 8 bits
	gray     = 0x0000000100010001
	opaque   = 0x00ff000000000000
)

// multiply multiplies colors by alpha, of 255.
func multiply(colors, alpha uint64) uint64 {
	product := (colors|opaque)*alpha + 0x0080008000800080
	return (product + product>>8&channels) >> 8 & channels
}

// multiplyBytes returns the pixel of red, green, blue and alpha, from the lowest byte on.
func multiplyBytes(rgba uint32) uint64 {
	pairs := (uint64(rgba) | uint64(rgba)<<16) & 0x0000ffff0000ffff
	return multiply((pairs|pairs<<8)&channels, uint64(rgba>>24))
}

// reducePixels reduces images whose channels are not in planes.
func reducePixels(img image.Image, part image.Rectangle, k int, size image.Rectangle) *image.NRGBA {
	small := image.NewNRGBA(size)
	row, sums := make([]uint64, part.Dx()), make([]uint64, size.Dx())
	var palette [256]uint64
	if img, ok := img.(*image.Paletted); ok {
		for i, c := range img.Palette {
			p := color.NRGBAModel.Convert(c).(color.NRGBA)
			palette[i] = multiplyBytes(binary.LittleEndian.Uint32([]byte{p.R, p.G, p.B, p.A}))
		}
	}
	for y := range size.Dy() {
		clear(sums)
		rows := min(k, part.Dy()-y*k)
		for i := range rows {
			readRow(row, img, part.Min.X, part.Min.Y+y*k+i, &palette)
			addBlocks(sums, row, k)
		}
		for x, sum := range sums {
			pix := small.Pix[y*small.Stride+4*x:]
			alpha := sum >> 48
			for c := range 3 {
				pix[c] = byte((sum>>(16*c)&0xffff*255 + alpha/2) / max(alpha, 1))
			}
			pix[3] = byte(alpha / uint64(rows*min(k, part.Dx()-x*k)))
		}
	}
	return small
}

// readRow reads pixels from x, y on, of 16 bits the higher 8. Decoders return RGBA and RGBA64 only for opaque images.
func readRow(row []uint64, img image.Image, x, y int, palette *[256]uint64) {
	switch img := img.(type) {
	case *image.Paletted:
		for i, c := range img.Pix[img.PixOffset(x, y):][:len(row)] {
			row[i] = palette[c]
		}
	case *image.RGBA:
		readRow(row, (*image.NRGBA)(img), x, y, palette)
	case *image.NRGBA:
		pix := img.Pix[img.PixOffset(x, y):]
		for i := range row {
			row[i] = multiplyBytes(binary.LittleEndian.Uint32(pix[4*i:]))
		}
	case *image.CMYK: // each ink absorbs a color, and black all of them
		pix := img.Pix[img.PixOffset(x, y):]
		for i := range row {
			row[i] = opaque | multiplyBytes(^binary.LittleEndian.Uint32(pix[4*i:]))
		}
	case *image.Gray16:
		pix := img.Pix[img.PixOffset(x, y):]
		for i := range row {
			row[i] = opaque | gray*uint64(pix[2*i])
		}
	case *image.RGBA64:
		readRow(row, (*image.NRGBA64)(img), x, y, palette)
	case *image.NRGBA64:
		pix := img.Pix[img.PixOffset(x, y):]
		for i := range row {
			pixel := binary.LittleEndian.Uint64(pix[8*i:]) & channels
			row[i] = multiply(pixel, pixel>>48)
		}
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
