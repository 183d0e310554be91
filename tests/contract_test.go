package tests

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// An exchange is a request and its response, in the format of tools/openapi.
type exchange struct {
	Method              string      `json:"method"`
	URL                 string      `json:"url"`
	RequestHeader       http.Header `json:"request_header"`
	RequestBody         []byte      `json:"request_body,omitempty"`
	RequestBodyOmitted  bool        `json:"request_body_omitted,omitempty"`
	Status              int         `json:"status"`
	ResponseHeader      http.Header `json:"response_header"`
	ResponseBody        []byte      `json:"response_body,omitempty"`
	ResponseBodyOmitted bool        `json:"response_body_omitted,omitempty"`
}

var exchanges struct {
	sync.Mutex
	seen map[string]bool
	list []exchange
}

// record keeps an exchange for checkExchanges, without bodies that are images or long. Of exchanges
// that differ only in their headers it keeps one.
func record(req *http.Request, body []byte, resp *http.Response, answer []byte) {
	if strings.HasPrefix(req.URL.Path, "/swagger/") && req.URL.Path != "/swagger/" {
		return // files of the page, no part of the API
	}
	const long = 64 << 10
	e := exchange{
		Method: req.Method, URL: req.URL.RequestURI(),
		RequestHeader: req.Header, RequestBody: body,
		Status: resp.StatusCode, ResponseHeader: resp.Header, ResponseBody: answer,
	}
	if len(body) > long {
		e.RequestBody, e.RequestBodyOmitted = nil, true
	}
	if len(answer) > long || strings.HasPrefix(resp.Header.Get("Content-Type"), "image/") {
		e.ResponseBody, e.ResponseBodyOmitted = nil, true
	}
	key := fmt.Sprintf("%s %s %q %s %d", e.Method, e.URL, e.RequestBody, req.Header.Get("Content-Type"), e.Status)
	exchanges.Lock()
	defer exchanges.Unlock()
	if exchanges.seen == nil {
		exchanges.seen = map[string]bool{}
	}
	if len(exchanges.list) < 5000 && !exchanges.seen[key] {
		exchanges.seen[key] = true
		exchanges.list = append(exchanges.list, e)
	}
}

// checkExchanges validates the requests and responses of all tests against openapi.yaml. The checker
// is a module of its own: the service does not depend on it.
func checkExchanges(dir string) error {
	if _, err := os.Stat("../tools/openapi"); err != nil {
		return nil
	}
	if len(exchanges.list) == 0 {
		return nil
	}
	file := filepath.Join(dir, "exchanges.jsonl")
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(f)
	for _, e := range exchanges.list {
		if err := encoder.Encode(e); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if keep := os.Getenv("ROSTER_TEST_EXCHANGES"); keep != "" {
		data, _ := os.ReadFile(file)
		os.WriteFile(keep, data, 0o644)
	}
	out, err := exec.Command("go", "run", "-C", "../tools/openapi", ".", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the exchanges of the tests and openapi.yaml differ: %w\n%s", err, out)
	}
	if flag.Lookup("test.run").Value.String() == "" { // else it lists what other tests would have seen
		fmt.Printf("contract: %s", out)
	}
	return nil
}
