package tests

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"roster/internal/testkit"
)

// BenchmarkAWS compares requests with the bare AWS calls they stand for: on the same
// servers, with the same concurrency, alternating. It reports
//
//	ratio   requests per second, divided by bare calls per second
//	MiB     peak resident memory of the service
//	cpu-µs  CPU time of the service per request
//
// "near" are local servers, which share the CPUs with the service and its clients: every
// microsecond of any of them lowers the ratio. "far" are the same servers with AWS-like
// latency: the ratio is that of latency. "list-canned" uses prepared pages and so measures the service alone.
// The bare calls of an upload are PutObject, then UpdateItem; those of a read are GetItem,
// then GetObject. "handler" is a bare net/http handler that makes the same calls, in place of
// the service: what a second connection costs.
//
// It needs the servers in ROSTER_TEST_DYNAMODB and ROSTER_TEST_S3:
//
//	tools/aws-local run go test -run '^$' -bench AWS -benchtime 12x -timeout 1h ./tests
func BenchmarkAWS(b *testing.B) {
	b.Run("near", func(b *testing.B) {
		b.Run("create", func(b *testing.B) { benchCreate(b, realServers(b), 16) })
		b.Run("list", func(b *testing.B) { benchList(b, realServers(b)) })
		b.Run("list-canned", benchCannedList)
		b.Run("upload", func(b *testing.B) { benchUpload(b, realServers(b), 16) })
		b.Run("read", func(b *testing.B) { benchRead(b, realServers(b), 16) })
	})
	b.Run("far", func(b *testing.B) {
		b.Run("create", func(b *testing.B) { benchCreate(b, farAWS(b, realServers(b)), 4) })
		b.Run("upload", func(b *testing.B) { benchUpload(b, farAWS(b, realServers(b)), 4) })
		b.Run("read", func(b *testing.B) { benchRead(b, farAWS(b, realServers(b)), 4) })
	})
}

// benchConns is more than the number of clients.
const benchConns = 512

// Latency as AWS documents it, at the lower end: DynamoDB single-digit milliseconds, S3
// roughly 100 to 200.
const (
	dynamoLatency = 5 * time.Millisecond
	s3Latency     = 100 * time.Millisecond
)

// farAWS adds AWS-like latency.
func farAWS(b *testing.B, near awsServers) awsServers {
	far := near
	far.dynamoURL, far.s3URL = distant(b, near.dynamoURL, dynamoLatency), distant(b, near.s3URL, s3Latency)
	return far
}

// distant returns the URL of a proxy that adds latency.
func distant(t testing.TB, server string, latency time.Duration) (url string) {
	target := testkit.Must(neturl.Parse(server))
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // is signed
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: benchConns, DisableCompression: true},
	}
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(latency)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(far.Close)
	return far.URL
}

// A benchWorld is the service with a client, and default SDK clients of its servers with
// more connections.
type benchWorld struct {
	awsServers
	dynamo  *dynamodb.Client
	s3      *s3.Client
	process *process
	client  *http.Client
}

func newBenchWorld(b *testing.B, servers awsServers) *benchWorld {
	dynamo, s3 := servers.clients(awsconfig.WithHTTPClient(benchHTTPClient()))
	return &benchWorld{
		awsServers: servers,
		dynamo:     dynamo,
		s3:         s3,
		process:    start(b, append(servers.env(), "LOG_LEVEL=info")...),
		client:     &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchConns}},
	}
}

func benchHTTPClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost,
			t.MaxIdleConns = benchConns, 0
	})
}

// benchItem is the item of a user with an avatar, without the object.
func benchItem(email string) map[string]types.AttributeValue {
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	return map[string]types.AttributeValue{
		"id": text(userID(email)), "name": text("Anna Example"), "email": text(email),
		"created_at": text("2026-01-02T03:04:05.678Z"), "updated_at": text("2026-01-02T03:04:05.678Z"),
		"write": text("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
		"avatar": &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{
			"key": text("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "type": text("image/png"),
			"size": &types.AttributeValueMemberN{Value: "1000"},
		}},
	}
}

// do sends a request that must succeed, with a header of names and values.
func (w *benchWorld) do(b *testing.B, method, url string, body []byte, header ...string) {
	if strings.HasPrefix(url, "/") {
		url = w.process.url + url
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		b.Error(err)
		return
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode >= 400 {
		b.Errorf("%s %s: %d, %v", method, url, resp.StatusCode, err)
	}
}

// compare alternates n bare calls and n requests and reports both. The functions are
// called with unique numbers.
func (w *benchWorld) compare(b *testing.B, clients, n int, bare, request func(i int)) {
	var next atomic.Int64
	round := func(n int, do func(i int)) time.Duration {
		runtime.GC()
		start := time.Now()
		var left atomic.Int64
		left.Store(int64(n))
		var done sync.WaitGroup
		for range clients {
			done.Go(func() {
				for left.Add(-1) >= 0 {
					do(int(next.Add(1)))
				}
			})
		}
		done.Wait()
		return time.Since(start)
	}
	round(n/4+1, bare)
	round(n/4+1, request)
	var bareTime, requestTime, cpu time.Duration
	rounds := 0
	for b.Loop() {
		bareTime += round(n, bare)
		before := w.process.cpuTime(b)
		requestTime += round(n, request)
		cpu += w.process.cpuTime(b) - before
		rounds++
	}
	calls := float64(n * rounds)
	b.ReportMetric(float64(bareTime)/float64(requestTime), "ratio")
	b.ReportMetric(calls/bareTime.Seconds(), "bare/s")
	b.ReportMetric(calls/requestTime.Seconds(), "requests/s")
	b.ReportMetric(float64(cpu.Microseconds())/calls, "cpu-µs")
	b.ReportMetric(w.process.peakMemory(b)/mib, "MiB")
	b.ReportMetric(0, "ns/op")
}

// cpuTime returns the CPU time of the service (proc_pid_stat(5), fields 14 and 15, in
// hundredths of a second).
func (p *process) cpuTime(b *testing.B) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		return 0 // not Linux
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Error(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func benchCreate(b *testing.B, servers awsServers, clients int) {
	w := newBenchWorld(b, servers)
	run := rand.Uint64()
	w.compare(b, clients, 90*clients, func(i int) {
		item := benchItem(fmt.Sprintf("bare%d.%d@example.com", run, i))
		delete(item, "avatar")
		_, err := w.dynamo.PutItem(context.Background(), &dynamodb.PutItemInput{TableName: &w.table, Item: item})
		if err != nil {
			b.Error(err)
		}
	}, func(i int) {
		body := fmt.Appendf(nil, `{"name":"Anna Example","email":"user%d.%d@example.com"}`, run, i)
		w.do(b, "POST", "/user", body, "Content-Type", "application/json")
	})
}

func benchList(b *testing.B, servers awsServers) {
	w := newBenchWorld(b, servers)
	const n = 100_000
	var fill sync.WaitGroup
	for part := range 4 {
		fill.Go(func() {
			for i := part * n / 4; i < (part+1)*n/4; i += 25 {
				var writes []types.WriteRequest
				for j := i; j < i+25; j++ {
					item := benchItem(fmt.Sprintf("user%d@example.com", j))
					writes = append(writes, types.WriteRequest{PutRequest: &types.PutRequest{Item: item}})
				}
				_, err := w.dynamo.BatchWriteItem(context.Background(), &dynamodb.BatchWriteItemInput{
					RequestItems: map[string][]types.WriteRequest{w.table: writes},
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	fill.Wait()
	if b.Failed() {
		return
	}
	w.compareLists(b, n)
}

// compareLists compares the list with Scans whose responses are not decoded.
func (w *benchWorld) compareLists(b *testing.B, n int) {
	scans := benchHTTPClient()
	w.compare(b, 1, 1, func(int) {
		count := 0
		var start map[string]types.AttributeValue
		for {
			out, err := w.dynamo.Scan(context.Background(), &dynamodb.ScanInput{TableName: &w.table,
				ExclusiveStartKey: start,
				Limit:             aws.Int32(3000)},
				func(o *dynamodb.Options) {
					o.HTTPClient = undecoded{scans}
					o.DisableValidateResponseChecksum = true // the body was replaced
				})
			if err != nil {
				b.Fatal(err)
			}
			count += int(out.Count)
			if start = out.LastEvaluatedKey; len(start) == 0 {
				break
			}
		}
		if count != n {
			b.Errorf("%d items, want %d", count, n)
		}
	}, func(int) { w.do(b, "GET", "/users", nil) })
}

// undecoded reads the responses of Scans and passes only Count and LastEvaluatedKey on to
// the SDK.
type undecoded struct{ aws.HTTPClient }

var scanCount, scanNext = regexp.MustCompile(`"Count":\d+`),
	regexp.MustCompile(`"LastEvaluatedKey":\{"id":\{"S":"[^"]*"\}\}`)

func (u undecoded) Do(req *http.Request) (*http.Response, error) {
	resp, err := u.HTTPClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	// Both are at an end of the body.
	ends := slices.Concat(body[:min(300, len(body))], body[max(0, len(body)-300):])
	rest := [][]byte{scanCount.Find(ends)}
	if next := scanNext.Find(ends); next != nil {
		rest = append(rest, next)
	}
	resp.ContentLength = -1
	resp.Body = io.NopCloser(strings.NewReader("{" + string(bytes.Join(rest, []byte(","))) + "}"))
	return resp, nil
}

// benchCannedList serves prepared pages of the size of DynamoDB's.
func benchCannedList(b *testing.B) {
	const n, size = 100_000, 3770
	type value map[string]json.RawMessage // {"S": "text"}
	type item map[string]value
	pages := map[string][]byte{} // by ExclusiveStartKey
	after := ""
	for i := 0; i < n; i += size {
		var items []item
		for j := i; j < min(i+size, n); j++ {
			str := func(s string) value { return value{"S": json.RawMessage(strconv.Quote(s))} }
			u := item{}
			for name, v := range benchItem(fmt.Sprintf("user%d@example.com", j)) {
				if v, ok := v.(*types.AttributeValueMemberS); ok {
					u[name] = str(v.Value)
				}
			}
			avatar := testkit.Must(json.Marshal(map[string]value{
				"key": str("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "type": str("image/png"),
				"size": {"N": json.RawMessage(`"1000"`)},
			}))
			u["avatar"] = value{"M": avatar}
			items = append(items, u)
		}
		out := map[string]any{"Items": items, "Count": len(items)}
		last := items[len(items)-1]["id"]
		if i+size < n {
			out["LastEvaluatedKey"] = item{"id": last}
		}
		page, err := json.Marshal(out)
		if err != nil {
			b.Fatal(err)
		}
		pages[after] = page
		after = string(last["S"])
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ ExclusiveStartKey item }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			b.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		if r.Header.Get("X-Amz-Target") != "DynamoDB_20120810.Scan" { // readiness
			w.Write([]byte("{}"))
			return
		}
		page := pages[string(in.ExclusiveStartKey["id"]["S"])]
		w.Header().Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(page)), 10))
		w.Write(page)
	}))
	b.Cleanup(server.Close)
	w := newBenchWorld(b, awsServers{server.URL, testkit.NewS3(b).URL, testkit.Table, testkit.Bucket})
	w.compareLists(b, n)
}

// benchImages are of about 1 MiB each: noise, a photograph of five megapixels, and a small
// image with a large profile. No upload decodes them, so they cost the same.
func benchImages(b *testing.B) map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := image.NewNRGBA(image.Rect(0, 0, 590, 590))
	for i := range noise.Pix {
		noise.Pix[i] = byte(random.Uint32())
		if i%4 == 3 {
			noise.Pix[i] = 255
		}
	}
	photo := image.NewNRGBA(image.Rect(0, 0, 2560, 1920))
	for y := range 1920 {
		for x := range 2560 {
			p := photo.Pix[photo.PixOffset(x, y):]
			grain := byte(random.Uint32() % 16)
			p[0], p[1], p[2], p[3] = byte(x/16)+grain, byte(y/16)+grain, byte((x+y)/32)+grain, 255
		}
	}
	var pngBytes, jpegBytes bytes.Buffer
	if err := png.Encode(&pngBytes, noise); err != nil {
		b.Fatal(err)
	}
	if err := jpeg.Encode(&jpegBytes, photo, &jpeg.Options{Quality: 80}); err != nil {
		b.Fatal(err)
	}
	small := testkit.PNG(testkit.Gradient(64, 64, 1))
	padded := testkit.PadPNG(small, 1<<20)
	b.Logf("PNG of %d KiB, JPEG of %d KiB, with a profile %d KiB", pngBytes.Len()>>10, jpegBytes.Len()>>10,
		len(padded)>>10)
	return map[string][]byte{"png": pngBytes.Bytes(), "jpeg": jpegBytes.Bytes(), "profile": padded}
}

func benchUpload(b *testing.B, servers awsServers, clients int) {
	w := newBenchWorld(b, servers)
	users, others := w.createUsers(b, "user"), w.createUsers(b, "bare")
	for name, image := range benchImages(b) {
		var contentTypes []string
		var forms [][]byte
		for _, id := range users {
			contentType, form := testkit.Form(image, map[string][]string{"user_id": {id}})
			contentTypes, forms = append(contentTypes, contentType), append(forms, form)
		}
		bare := func(i int) {
			if err := w.bareUpload(others[i%len(others)], image); err != nil {
				b.Error(err)
			}
		}
		b.Run(name+"/put", func(b *testing.B) {
			w.compare(b, clients, 24*clients, bare, func(i int) {
				w.do(b, "PUT", "/users/"+users[i%len(users)]+"/avatar", image)
			})
		})
		b.Run(name+"/handler", func(b *testing.B) {
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				data := make([]byte, r.ContentLength)
				_, err := io.ReadFull(r.Body, data)
				if err := cmp.Or(err, w.bareUpload(path.Base(r.URL.Path), data)); err != nil {
					b.Error(err)
				}
			}))
			defer server.Close()
			w.compare(b, clients, 24*clients, bare, func(i int) {
				w.do(b, "PUT", server.URL+"/"+others[i%len(others)], image)
			})
		})
		b.Run(name+"/form", func(b *testing.B) {
			w.compare(b, clients, 24*clients, bare, func(i int) {
				w.do(b, "POST", "/upload", forms[i%len(forms)], "Content-Type", contentTypes[i%len(forms)])
			})
		})
	}
}

// bareUpload stores an image and then points the user to it, as the service does. It
// overwrites the previous image, which the service deletes after the response.
func (w *benchWorld) bareUpload(id string, image []byte) error {
	ctx := context.Background()
	_, err := w.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket:      &w.bucket,
		Key:         aws.String("avatars/" + id + "/bare"),
		Body:        bytes.NewReader(image),
		ContentType: aws.String("image/png"),
	})
	if err != nil {
		return err
	}
	item := benchItem("bare@example.com")
	_, err = w.dynamo.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                &w.table,
		Key:                      keyOf(id),
		ConditionExpression:      aws.String("attribute_exists(id)"),
		UpdateExpression:         aws.String("SET avatar = :avatar, updated_at = :at, #write = :write REMOVE removed"),
		ExpressionAttributeNames: map[string]string{"#write": "write"},
		ExpressionAttributeValues: map[string]types.AttributeValue{":avatar": item["avatar"], ":at": item["updated_at"],
			":write": item["write"]},
		ReturnValues: types.ReturnValueAllOld,
	})
	return err
}

func keyOf(id string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: id}}
}

func benchRead(b *testing.B, servers awsServers, clients int) {
	w := newBenchWorld(b, servers)
	users := w.createUsers(b, "user")
	image := benchImages(b)["png"]
	var keys, urls []string
	for _, id := range users {
		u := w.process.do(b, "PUT /users/"+id+"/avatar", nil, image).want(b, http.StatusOK).user(b)
		keys = append(keys, "avatars/"+id+"/"+path.Base(u.AvatarURL))
		urls = append(urls, u.AvatarURL)
	}
	read := func(i int, to io.Writer) {
		ctx := context.Background()
		_, err := w.dynamo.GetItem(ctx, &dynamodb.GetItemInput{TableName: &w.table, Key: keyOf(users[i]),
			ConsistentRead: aws.Bool(true)})
		if err != nil {
			b.Error(err)
			return
		}
		out, err := w.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &w.bucket, Key: &keys[i]})
		if err != nil {
			b.Error(err)
			return
		}
		defer out.Body.Close()
		if n, err := io.Copy(to, out.Body); err != nil || n != int64(len(image)) {
			b.Errorf("%d bytes, %v", n, err)
		}
	}
	bare := func(i int) { read(i%len(users), io.Discard) }
	b.Run("get", func(b *testing.B) {
		w.compare(b, clients, 18*clients, bare, func(i int) { w.do(b, "GET", urls[i%len(urls)], nil) })
	})
	b.Run("handler", func(b *testing.B) {
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(image)))
			read(testkit.Must(strconv.Atoi(path.Base(r.URL.Path))), rw)
		}))
		defer server.Close()
		w.compare(b, clients, 18*clients, bare, func(i int) {
			w.do(b, "GET", fmt.Sprintf("%s/%d", server.URL, i%len(users)), nil)
		})
	})
}

func (w *benchWorld) createUsers(b *testing.B, name string) (ids []string) {
	for i := range 32 {
		email := fmt.Sprintf("%s%d@example.com", name, i)
		w.do(b, "POST", "/user", fmt.Appendf(nil, `{"name":"Anna","email":%q}`, email), "Content-Type",
			"application/json")
		ids = append(ids, userID(email))
	}
	return ids
}

// BenchmarkRequests measures the CPU time of the service per request, with 16 clients, on
// the embedded store and on the servers of BenchmarkAWS.
func BenchmarkRequests(b *testing.B) {
	b.Run("embedded", func(b *testing.B) { benchRequests(b, nil) })
	b.Run("aws", func(b *testing.B) { benchRequests(b, realServers(b).env()) })
}

func benchRequests(b *testing.B, env []string) {
	const clients = 16
	w := &benchWorld{
		process: start(b, append(env, "LOG_LEVEL=info")...),
		client:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchConns}},
	}
	b.ReportMetric(w.process.memory(b)/mib, "MiB-idle")
	image := testkit.JPEG(testkit.Gradient(640, 640, 3))
	b.Logf("JPEG of %d kB", len(image)/1000)
	var users, urls []string
	for _, id := range w.createUsers(b, "user") {
		u := w.process.do(b, "PUT /users/"+id+"/avatar", nil, image).want(b, http.StatusOK).user(b)
		users, urls = append(users, "/users/"+id), append(urls, u.AvatarURL)
		w.do(b, "GET", u.ThumbnailURL, nil)
	}
	var created atomic.Int64
	for _, request := range []struct {
		name string
		send func(i int)
	}{
		{"user", func(i int) { w.do(b, "GET", users[i], nil) }},
		{"image", func(i int) { w.do(b, "GET", urls[i], nil) }},
		{"image-304", func(i int) { w.do(b, "GET", urls[i], nil, "If-None-Match", "*") }},
		{"thumbnail", func(i int) { w.do(b, "GET", users[i]+"/thumbnail", nil) }},
		{"by-hash", func(i int) {
			w.do(b, "GET", fmt.Sprintf("/avatar/%x", sha256.Sum256(fmt.Appendf(nil, "user%d@example.com", i))), nil)
		}},
		{"identicon", func(i int) { w.do(b, "GET", fmt.Sprintf("/avatar/%d?f=y", i), nil) }},
		{"create", func(int) {
			body := fmt.Appendf(nil, `{"name":"Anna Example","email":"anna%d@example.com"}`, created.Add(1))
			w.do(b, "POST", "/user", body, "Content-Type", "application/json")
		}},
		{"list-1000", func(int) { w.do(b, "GET", "/users?limit=1000", nil) }},
		{"upload", func(i int) { w.do(b, "PUT", users[i]+"/avatar", image) }},
	} {
		b.Run(request.name, func(b *testing.B) {
			before := w.process.cpuTime(b)
			var next atomic.Int64
			b.SetParallelism(clients / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					request.send(int(next.Add(1)) % len(users))
				}
			})
			b.ReportMetric(float64((w.process.cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs")
		})
	}
	b.Run("thumbnail-first", func(b *testing.B) {
		photo := testkit.JPEG(testkit.Gradient(4000, 3000, 3))
		var cpu time.Duration
		for b.Loop() {
			u := w.process.do(b, "PUT "+users[0]+"/avatar", nil, photo).want(b, http.StatusOK).user(b)
			before := w.process.cpuTime(b)
			w.do(b, "GET", u.ThumbnailURL, nil)
			cpu += w.process.cpuTime(b) - before
		}
		b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs")
		b.ReportMetric(w.process.peakMemory(b)/mib, "MiB")
	})
}
