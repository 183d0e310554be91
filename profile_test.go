package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"os"
	"slices"
	"testing"

	"roster/internal/testkit"
)

// A profileTag is a tag of a color profile: its name, and its content, type first.
type profileTag struct{ name, content string }

// iccProfile is a color profile of a monitor.
func iccProfile(space string, tags ...profileTag) []byte {
	header := make([]byte, 128)
	copy(header[8:], "\x02\x40\x00\x00mntr"+space+"XYZ \x07\xe8\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00acsp")
	copy(header[68:], "\x00\x00\xf6\xd6\x00\x01\x00\x00\x00\x00\xd3\x2d") // D50
	copy(header[84:], "0123456789abcdef")                                 // ID
	table := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	var content []byte
	for _, tag := range tags {
		at := len(header) + 4 + 12*len(tags) + len(content)
		table = append(table, tag.name...)
		table = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(table, uint32(at)), uint32(len(tag.content)))
		content = append(content, tag.content...)
		content = append(content, make([]byte, -len(content)&3)...)
	}
	profile := slices.Concat(header, table, content)
	binary.BigEndian.PutUint32(profile, uint32(len(profile)))
	return profile
}

func iccXYZ(name string, x, y, z float64) profileTag {
	content := []byte("XYZ \x00\x00\x00\x00")
	for _, v := range []float64{x, y, z} {
		content = binary.BigEndian.AppendUint32(content, uint32(int32(v*65536)))
	}
	return profileTag{name, string(content)}
}

func iccGamma(name string, gamma float64) profileTag {
	return profileTag{name, "curv\x00\x00\x00\x00\x00\x00\x00\x01" + string(binary.BigEndian.AppendUint16(nil, uint16(gamma*256)))}
}

// iccTexts are the description of a profile in its two types, of this length, and the copyright.
func iccTexts(text string) []profileTag {
	size := binary.BigEndian.AppendUint32(nil, uint32(len(text)+1))
	var utf16 []byte
	for _, c := range []byte(text) {
		utf16 = append(utf16, 0, c)
	}
	record := binary.BigEndian.AppendUint32([]byte("enUS"), uint32(len(utf16)))
	return []profileTag{
		{"desc", "desc\x00\x00\x00\x00" + string(size) + text + string(make([]byte, 79))},
		{"dscm", "mluc\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0c" + string(record) + "\x00\x00\x00\x1c" + string(utf16)},
		{"cprt", "text\x00\x00\x00\x00Public domain\x00"},
	}
}

func rgbProfile(gamma float64, primaries [9]float64, more ...profileTag) []byte {
	p := primaries
	return iccProfile("RGB ", slices.Concat(iccTexts("Display of nobody"), []profileTag{
		iccXYZ("wtpt", 0.9642, 1, 0.8249), iccXYZ("rXYZ", p[0], p[1], p[2]), iccXYZ("gXYZ", p[3], p[4], p[5]), iccXYZ("bXYZ", p[6], p[7], p[8]),
		iccGamma("rTRC", gamma), iccGamma("gTRC", gamma), iccGamma("bTRC", gamma),
	}, more)...)
}

func grayProfile(gamma float64) []byte {
	return iccProfile("GRAY", append(iccTexts("Gray"), iccXYZ("wtpt", 0.9642, 1, 0.8249), iccGamma("kTRC", gamma))...)
}

var (
	adobeRGB  = [9]float64{0.60974, 0.31111, 0.01947, 0.20528, 0.62567, 0.06087, 0.14919, 0.06322, 0.74457}
	displayP3 = [9]float64{0.51512, 0.24120, -0.00105, 0.29198, 0.69225, 0.04189, 0.15710, 0.06657, 0.78407}
	appleRGB  = [9]float64{0.45427, 0.24263, 0.01482, 0.35332, 0.67441, 0.09042, 0.15662, 0.08336, 0.71953}
)

// plantedProfile has the secret in every place, and the same profile without.
func plantedProfile() (planted, clean []byte) {
	more := []profileTag{
		{"mmod", "mmod\x00\x00\x00\x00" + secret}, {"vcgt", "vcgt\x00\x00\x00\x00" + secret}, {"dmdd", iccTexts(secret)[0].content},
	}
	planted = rgbProfile(2.2, adobeRGB, append(iccTexts(secret)[:2], more...)...)
	planted = append(planted, secret...) // in no tag
	clean = bytes.ReplaceAll(planted, []byte(secret), make([]byte, len(secret)))
	for _, text := range []string{secret, "Display of nobody"} {
		for _, utf16 := range []string{text, iccTexts(text)[1].content[28:]} {
			clean = bytes.ReplaceAll(clean, []byte(utf16), make([]byte, len(utf16)))
		}
	}
	clear(clean[84:100])
	return planted, clean
}

// TestCleanProfile: only what color engines read stays, and the structure.
func TestCleanProfile(t *testing.T) {
	planted, want := plantedProfile()
	got := cleanProfile(slices.Clone(planted))
	if !bytes.Equal(got, want) {
		t.Errorf("profile: got %q, want %q", got, want)
	}
	if again := cleanProfile(slices.Clone(got)); !bytes.Equal(again, got) {
		t.Error("profile: cleaned differently the second time")
	}
	shared := slices.Clone(planted) // rTRC is the content of vcgt, too
	at := func(name string) int { return 132 + bytes.Index(shared[132:], []byte(name)) }
	copy(shared[at("vcgt")+4:at("vcgt")+12], shared[at("rTRC")+4:])
	if got := cleanProfile(shared); !bytes.Contains(got, []byte("curv\x00\x00\x00\x00\x00\x00\x00\x01\x02\x33")) {
		t.Error("profile: content of rTRC is blanked because vcgt shares it")
	}
}

// TestCleanProfileBroken: a profile that no color engine takes is dropped.
func TestCleanProfileBroken(t *testing.T) {
	patched := func(at int, value uint32) []byte {
		profile := rgbProfile(2.2, adobeRGB)
		binary.BigEndian.PutUint32(profile[at:], value)
		return profile
	}
	for name, profile := range map[string][]byte{
		"empty":                  {},
		"no signature":           patched(36, 0),
		"100,000 tags":           append(patched(128, 100_000), make([]byte, 1_200_000)...),
		"4,294,967,295 tags":     patched(128, 0xffffffff),
		"tag table past the end": patched(128, 99),
		"tag past the end":       patched(136, 0xfffffff0),
		"tag of 4 GB":            patched(140, 0xffffffff),
	} {
		if got := cleanProfile(profile); got != nil {
			t.Errorf("profile with %s: %d bytes stay", name, len(got))
		}
	}
	if clean := cleanProfile(patched(0, 0xffffffff)); clean == nil {
		t.Error("profile that announces 4 GB: dropped; browsers ignore it, others read it")
	}
}

// compressed compresses a profile as other programs do.
func compressed(name string, profile []byte) []byte {
	var b bytes.Buffer
	b.WriteString(name + "\x00\x00")
	w := zlib.NewWriter(&b)
	w.Write(profile)
	w.Close()
	return pngChunk("iCCP", b.Bytes())
}

// withTestProfile inserts a profile into a PNG or JPEG, in parts of at most 65,519 bytes.
func withTestProfile(img, profile []byte) []byte {
	if bytes.HasPrefix(img, []byte(pngSignature)) {
		return slices.Concat(img[:33], compressed("Display of nobody", profile), img[33:])
	}
	parts := slices.Collect(slices.Chunk(profile, maxProfile))
	var segments []byte
	for i, part := range parts {
		segments = append(segments, jpegSegment(0xe2, "ICC_PROFILE\x00", string([]byte{byte(i + 1), byte(len(parts))}), string(part))...)
	}
	return slices.Concat(img[:2], segments, img[2:])
}

// FuzzCleanProfile: whatever a profile is, it is dropped or keeps its size, header and tag table, in every format.
func FuzzCleanProfile(f *testing.F) {
	planted, clean := plantedProfile()
	f.Add(planted)
	f.Add(clean)
	f.Add(grayProfile(1.8))
	f.Add([]byte("profile"))
	img := testkit.Gradient(4, 4, 1)
	png, jpg := testkit.PNG(img), testkit.JPEG(img)
	thumb := png
	vp8l := testkit.Must(os.ReadFile("testdata/marker.webp"))[12:]
	f.Fuzz(func(t *testing.T, profile []byte) {
		if clean := cleanProfile(slices.Clone(profile)); clean != nil {
			table := 132 + 12*int(binary.BigEndian.Uint32(profile[128:]))
			if len(clean) != len(profile) || !bytes.Equal(clean[:84], profile[:84]) || !bytes.Equal(clean[100:table], profile[100:table]) {
				t.Errorf("profile: size, header or tag table changed: %q, want %q", clean, profile)
			}
		}
		for name, data := range map[string][]byte{
			"PNG":  withTestProfile(png, profile),
			"JPEG": withTestProfile(jpg, profile[:min(len(profile), 200*maxProfile)]),
			"WebP": webpFile(webpCanvas(webpFlags["ICCP"], 90, 60), webpChunk("ICCP", profile), vp8l),
		} {
			clean, err := checkClean(t, name, data)
			if err != nil {
				t.Errorf("%s: refused because of its profile: %v", name, err)
			}
			if img, _, err := prepareThumbnail(clean); err == nil {
				withProfile(slices.Clone(thumb), img.profile) // must not panic
			}
		}
	})
}
