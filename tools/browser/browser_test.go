package browser

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// stepTimeout is for one operation, from loading the page to seeing the answer.
const stepTimeout = 5 * time.Minute

// A step tries one operation out, as somebody at the page would.
type step struct {
	operation string
	mediaType string            // chosen for the request body; empty: as the page suggests
	values    map[string]string // of parameters and form fields; others stay as the operation's last step left them
	body      string            // JSON; empty: none
	file      string            // name of the file input; "body" if the file is the whole body
	status    string
	shows     string // part of the answer on the page; "image" if it is one
}

var long = flag.Bool("long", false, "try every operation both with and without tokens")

// TestSwaggerUI tries every operation of the contract at ROSTER_URL: those of users and the service with tokens,
// those of avatars without, each in a browser of its own. It creates its own users and deletes them.
func TestSwaggerUI(t *testing.T) {
	base, token := serviceURL(t), os.Getenv("ROSTER_TOKEN")
	unique := fmt.Sprint(time.Now().UnixNano())
	email := func(who string) string { return who + "-" + unique + "@example.com" }
	picture := writePicture(t)
	var mu sync.Mutex
	tried := []string{}
	try := func(t *testing.T, b *browser, steps []step) {
		t.Helper()
		for _, s := range steps {
			b.try(t, picture, s)
			mu.Lock()
			tried = append(tried, s.operation)
			mu.Unlock()
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, f := range b.faults {
			t.Error(f)
		}
		if b.requests < len(steps) {
			t.Errorf("the browser reported %d requests, want %d or more", b.requests, len(steps))
		}
	}
	t.Cleanup(func() {
		slices.Sort(tried)
		if got, want := slices.Compact(tried), operations(t, base); *long && !slices.Equal(got, want) {
			t.Errorf("tried the operations %q of %q", got, want)
		}
	})

	t.Run("users", func(t *testing.T) {
		t.Parallel()
		if token == "" && !*long {
			t.Skip("without tokens, runs with -long")
		}
		b := openPage(t, base, token)
		shown := b.try(t, "", step{operation: "createUser", mediaType: "application/json",
			body: `{"name": "Ada Lovelace", "email": "` + email("ada") + `"}`, status: "201", shows: email("ada")})
		ada := idOf(t, shown)
		t.Cleanup(func() { remove(t, base, token, ada) })
		id := map[string]string{"id": ada}
		try(t, b, []step{
			{operation: "createUser", mediaType: "application/json", body: `{"name": "Ada", "email": "` + email("ADA") +
				`"}`,
				status: "409", shows: "urn:roster:problem:email-taken"},
			{operation: "listUsers", values: map[string]string{"limit": "2"}, status: "200", shows: "created_at"},
			{operation: "listUsers", values: map[string]string{"limit": ""}, status: "200", shows: "created_at"},
			{operation: "listUsers", values: map[string]string{"email": email("ADA")}, status: "200",
				shows: "Ada Lovelace"},
			{operation: "getUser", values: id, status: "200", shows: "Ada Lovelace"},
			{operation: "renameUser", values: id, body: `{"name": "Ada King"}`, status: "200", shows: "Ada King"},
			{operation: "uploadAvatar", values: map[string]string{"email": email("ada")}, file: "avatar", status: "200",
				shows: "/avatar/"},
			{operation: "uploadAvatar", values: map[string]string{"user_id": ada, "email": ""}, file: "avatar",
				status: "200",
				shows:  "/avatar/"},
			{operation: "deleteUser", values: id, status: "204"},
			{operation: "getUser", values: id, status: "404", shows: "urn:roster:problem:not-found"},
			{operation: "getLiveness", status: "200", shows: "ok"},
			{operation: "getReadiness", status: "200", shows: "ok"},
			{operation: "getVersion", status: "200", shows: "version"},
		})
	})
	t.Run("avatars", func(t *testing.T) {
		t.Parallel()
		if token != "" && !*long {
			t.Skip("with tokens, runs with -long")
		}
		b := openPage(t, base, token)
		create := func(s step) string {
			s.operation, s.mediaType, s.status = "createUser", cmp.Or(s.mediaType, "multipart/form-data"), "201"
			id := idOf(t, b.try(t, picture, s))
			t.Cleanup(func() { remove(t, base, token, id) })
			return id
		}
		create(step{mediaType: "application/x-www-form-urlencoded",
			values: map[string]string{"name": "Grace Hopper", "email": email("grace")}, shows: "Grace Hopper"})
		create(step{values: map[string]string{"name": "Mary Ward", "email": email("mary")}, file: "avatar",
			shows: "/avatar/"})
		emmy := create(step{values: map[string]string{"name": "Emmy Noether", "email": email("emmy")},
			shows: "Emmy Noether"})
		id := map[string]string{"id": emmy}
		with := func(pairs ...string) map[string]string {
			m := maps.Clone(id)
			for i := 0; i < len(pairs); i += 2 {
				m[pairs[i]] = pairs[i+1]
			}
			return m
		}
		try(t, b, []step{
			{operation: "getAvatar", values: id, status: "404", shows: "urn:roster:problem:not-found"},
			{operation: "putAvatar", mediaType: "image/*", values: id, file: "body", status: "200", shows: "/avatar/"},
			{operation: "getAvatar", values: id, status: "200", shows: "image"},
			{operation: "getAvatar", values: with("Range", "bytes=0-7"), status: "206"},
			{operation: "getAvatar", values: with("If-None-Match", "*", "Range", ""), status: "304"},
			{operation: "getThumbnail", values: id, status: "200", shows: "image"},
			{operation: "getPictureByHash", values: map[string]string{"hash": email("emmy")}, status: "200",
				shows: "image"},
			{operation: "getAvatarVersion", values: with("version", "replaced"), status: "200", shows: "image"},
			{operation: "getThumbnailVersion", values: with("version", "replaced"), status: "200", shows: "image"},
			{operation: "putAvatar", mediaType: "image/*", values: with("If-None-Match", "*"), file: "body",
				status: "412",
				shows:  "urn:roster:problem:precondition-failed"},
			{operation: "deleteAvatar", values: id, status: "204"},
			{operation: "putAvatar", mediaType: "application/octet-stream", values: with("If-None-Match", ""),
				file:   "body",
				status: "200", shows: "/avatar/"},
		})
	})
}

// openPage opens the page in a browser of its own and authorizes it with the token, if any.
func openPage(t *testing.T, base, token string) *browser {
	t.Helper()
	b := startBrowser(t, base)
	if token == "" {
		// Without tokens, on the screen of a phone.
		phone := emulation.SetDeviceMetricsOverrideParams{Width: 360, Height: 740, DeviceScaleFactor: 1, Mobile: true}
		if _, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, phone); err != nil {
			t.Fatal(err)
		}
	}
	b.load(t)
	b.run(t, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(pageLayout, token != "")))
	if token != "" {
		unauthorized := step{operation: "listUsers", status: "401", shows: "urn:roster:problem:unauthorized"}
		b.try(t, "", unauthorized)
		b.run(t, authorize("wrong"))
		b.try(t, "", unauthorized)
		b.run(t, logout, authorize(token))
		b.load(t) // the page keeps the token
	}
	return b
}

// idOf returns the id of the user that the page shows.
func idOf(t *testing.T, shown string) string {
	t.Helper()
	var user struct{ ID string }
	if err := json.Unmarshal([]byte(shown), &user); err != nil || user.ID == "" {
		t.Fatalf("the page does not show the new user: %v\n%s", err, shown)
	}
	return user.ID
}

// TestWatch lets the page violate its policy. TestSwaggerUI must notice.
func TestWatch(t *testing.T) {
	base := serviceURL(t)
	if os.Getenv("ROSTER_TOKEN") != "" {
		return // the same as without
	}
	b := startBrowser(t, base)
	b.load(t)
	for name, tt := range map[string]struct{ script, want string }{
		"other origin": {`new Image().src = "http://other.invalid/x.png"`, "other.invalid"},
		"inline script": {`document.head.appendChild(document.createElement("script")).textContent = "window.ran = true"`,
			"script-src"},
		"inline style": {`document.head.appendChild(document.createElement("style")).textContent = "body { color: red }"`,
			"style-src"},
		"console":   {`console.error("it hurts")`, "it hurts"},
		"exception": {`setTimeout(() => { throw new Error("it broke") })`, "it broke"},
	} {
		t.Run(name, func(t *testing.T) {
			b.mu.Lock()
			b.faults = nil
			b.mu.Unlock()
			b.run(t, chromedp.Evaluate[chromedp.Void](tt.script))
			deadline := time.Now().Add(10 * time.Second)
			for ; time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
				b.mu.Lock()
				seen := slices.ContainsFunc(b.faults, func(f string) bool { return strings.Contains(f, tt.want) })
				b.mu.Unlock()
				if seen {
					return
				}
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			t.Errorf("not noticed; faults: %q", b.faults)
		})
	}
}

func serviceURL(t *testing.T) string {
	t.Helper()
	base := strings.TrimSuffix(os.Getenv("ROSTER_URL"), "/")
	if base == "" {
		t.Skip("ROSTER_URL does not say where the service is")
	}
	return base
}

// A browser is a running one with one tab, and what has gone wrong in it.
type browser struct {
	ctx  context.Context
	base string

	used map[string]bool // operations tried since the page was loaded

	mu       sync.Mutex
	requests int
	faults   []string
}

func startBrowser(t *testing.T, base string) *browser {
	t.Helper()
	path := findBrowser(t)
	// Not t.Context, which ends before the cleanup that needs it.
	ctx, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless,
		chromedp.NoSandbox, // as root, in containers
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.WindowSize(1280, 1600),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
	)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		// Waits for the browser to end, so that its directory can be removed.
		if err := chromedp.Cancel(ctx); err != nil {
			t.Log(err)
		}
		cancel()
	})
	b := &browser{ctx: ctx, base: base}
	if err := chromedp.Listen(ctx, b.watch); err != nil {
		t.Fatal(err)
	}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	for _, enable := range []cdp.Command[cdp.Empty, cdp.Empty]{log.Enable, runtime.Enable, audits.Enable} {
		if err == nil {
			_, err = chromedp.Call(ctx, enable, cdp.Empty{})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func findBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("there is no Chromium on the PATH")
	return ""
}

// watch records failed requests, requests to anything but the service, violations of the page's policy, and
// errors on the console. That a request was answered by an error is none: some
// steps ask for one.
func (b *browser) watch(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fault := func(format string, args ...any) { b.faults = append(b.faults, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests++
		scheme, _, _ := strings.Cut(e.Request.URL, ":")
		if !slices.Contains([]string{"data", "blob", "about"}, scheme) &&
			!strings.HasPrefix(e.Request.URL, b.base+"/") {
			fault("request to somewhere else: %s", e.Request.URL)
		}
	case *network.EventLoadingFailed:
		if !e.Canceled {
			fault("request failed: %s", e.ErrorText)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			fault("log: %s", e.Entry.Text)
		}
	case *audits.EventIssueAdded:
		if d := e.Issue.Details.ContentSecurityPolicyIssueDetails; d != nil {
			fault("policy: %s refuses %q", d.ViolatedDirective, d.BlockedURL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
			var text []string
			for _, a := range e.Args {
				text = append(text, string(a.Value)+a.Description)
			}
			fault("console: %s", strings.Join(text, " "))
		}
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		fault("exception: %s", text)
	}
}

// try opens the operation, fills its form, executes it and returns the body of
// the answer as the page shows it.
func (b *browser) try(t *testing.T, picture string, s step) (body string) {
	t.Helper()
	name := strings.TrimSpace(s.operation + " " + s.mediaType + " " + s.status)
	t.Run(name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
		defer cancel()
		if err := b.execute(ctx, picture, s); err != nil {
			b.screenshot(t)
			t.Fatal(err)
		}
		answer := s.block() + " .live-responses-table"
		status, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(answer+" tbody .response-col_status")))
		if err == nil {
			body, err = chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(
				`document.querySelector(%q)?.innerText ?? ""`, answer+" .response-col_description code")))
		}
		if err == nil && s.shows == "image" {
			_, err = chromedp.Run(ctx, chromedp.Poll[bool](fmt.Sprintf(`document.querySelector(%q)?.naturalWidth > 0`,
				answer+" img")))
		}
		if err != nil {
			b.screenshot(t)
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(status, "\n"); first != s.status {
			b.screenshot(t)
			t.Errorf("status %q, want %s\n%s", status, s.status, body)
		}
		if s.shows != "image" && !strings.Contains(body, s.shows) {
			b.screenshot(t)
			t.Errorf("the page does not show %q:\n%s", s.shows, body)
		}
		// The page renders all open operations anew after each input.
		if _, err := chromedp.Run(ctx, click(s.block()+" .opblock-summary-control")); err != nil {
			t.Fatal(err)
		}
	})
	return body
}

// block selects the operation's part of the page.
func (s step) block() string {
	return fmt.Sprintf(`[id^="operations-"][id$="-%s"]`, s.operation)
}

func (b *browser) execute(ctx context.Context, picture string, s step) error {
	block := s.block()
	row := func(field string) string {
		return fmt.Sprintf(`%s tr:is([data-param-name=%q], [data-property-name=%[2]q])`, block, field)
	}
	actions := []chromedp.Action[chromedp.Void]{click(block + " .opblock-summary-control")}
	if b.used[s.operation] { // its form is as the previous step left it
		actions = append(actions, click(block+" .btn-clear"),
			chromedp.WaitNotPresent(chromedp.CSS(block+" .live-responses-table")))
	} else {
		actions = append(actions,
			click(block+" .try-out__btn"),
			chromedp.WaitVisible(chromedp.CSS(block+" .execute")),
			chromedp.Evaluate[chromedp.Void](fmt.Sprintf(operationLayout, block)),
		)
	}
	b.used[s.operation] = true
	if s.mediaType != "" {
		actions = append(actions, fill(block+" .opblock-section-request-body select", s.mediaType))
	}
	for field, value := range s.values {
		actions = append(actions, fill(row(field)+` :is(input, textarea):not([type=checkbox], [type=file])`, value))
	}
	if s.body != "" {
		actions = append(actions, fill(block+" textarea.body-param__text", s.body))
	}
	if s.body != "" || len(s.values) > 0 {
		actions = append(actions, debounce)
	}
	if s.file != "" {
		file := block + ` .opblock-section-request-body input[type=file]`
		if s.file != "body" {
			file = row(s.file) + ` input[type=file]`
		}
		actions = append(actions, chromedp.SetUploadFiles(chromedp.CSS(file), []string{picture}))
	}
	actions = append(actions,
		click(block+" .execute"),
		chromedp.WaitVisible(chromedp.CSS(block+" .live-responses-table tbody .response-col_status")),
	)
	return chromedp.Do(ctx, actions...)
}

// load starts the page from nothing but what it stores in the browser.
func (b *browser) load(t *testing.T) {
	t.Helper()
	b.run(t,
		chromedp.Navigate("about:blank"),
		chromedp.Navigate(b.base+"/swagger/"),
		chromedp.WaitVisible(chromedp.CSS(".opblock")),
	)
	b.used = map[string]bool{}
}

func (b *browser) run(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.screenshot(t)
		t.Fatal(err)
	}
}

// pageLayout checks the page as it is loaded.
const pageLayout = `(() => {
	const all = (selector) => [...document.querySelectorAll(selector)];
	const check = (what, got, want) => {
		if (got !== want) throw new Error("page: " + what + ": " + got + ", want " + want);
	};
	const failed = performance.getEntriesByType("resource").filter((e) => e.responseStatus >= 400);
	const schemas = all(".models .model-container, .models .json-schema-2020-12");
	const root = document.documentElement;
	check("pixels wider than the screen", root.scrollWidth - root.clientWidth, 0);
	check("first operation", all(".opblock")[0].id, "operations-users-createUser");
	check("padlocks", all(".authorize, .authorization__btn").length > 0, %t);
	check("closed padlocks", all('.authorization__btn[aria-label$=" locked"], .authorize.locked').length, 0);
	check("schemas", schemas.filter((e) => e.checkVisibility()).length, 0);
	check("failed requests", failed.map((e) => e.name).join(), "");
})()`

// operationLayout checks an operation as it is opened, and unfolds its headers.
const operationLayout = `(() => {
	const block = document.querySelector(%q);
	const visible = (selector) => [...block.querySelectorAll(selector)].filter((e) => e.checkVisibility());
	const check = (what, got, want) => {
		if (got !== want) throw new Error(block.id + ": " + what + ": " + got + ", want " + want);
	};
	const errors = visible("tr.response").filter((e) => e.dataset.code >= "400");
	const root = document.documentElement;
	check("pixels wider than the screen", root.scrollWidth - root.clientWidth, 0);
	check("parameters without a name", visible(".parameter__name").filter((e) => e.textContent.trim() == "").length, 0);
	check("unfolded headers", visible('[data-param-in="header"] input').length, 0);
	check("unfolded errors", errors.map((e) => e.dataset.code).join(), "");
	for (const e of visible('[data-property-name="avatar"] .parameter__type')) {
		check("label of the file", getComputedStyle(e, "::after").content, '"file"');
	}
	block.querySelectorAll("details:has([data-param-in])").forEach((e) => { e.open = true });
})()`

const masked = `if (getComputedStyle(document.querySelector(".modal-ux input")).webkitTextSecurity != "disc") {
	throw new Error("the page shows the token as it is typed");
}`

// authorize uses the Authorize button.
func authorize(token string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		click(".scheme-container .authorize"),
		chromedp.WaitVisible(chromedp.CSS(".modal-ux input")),
		chromedp.Evaluate[chromedp.Void](masked),
		fill(".modal-ux input", token),
		debounce,
		click(".modal-ux .auth-btn-wrapper .authorize"),
		// The one button of the dialog became "Logout": the page has the token.
		chromedp.WaitNotPresent(chromedp.CSS(".modal-ux input")),
		click(".modal-ux .btn-done"),
		chromedp.WaitNotPresent(chromedp.CSS(".modal-ux")),
	)
}

var logout = chromedp.Steps(
	click(".scheme-container .authorize"),
	click(".modal-ux .auth-btn-wrapper button:first-child"),
	chromedp.WaitVisible(chromedp.CSS(".modal-ux input")),
	click(".modal-ux .btn-done"),
	chromedp.WaitNotPresent(chromedp.CSS(".modal-ux")),
)

// click clicks within the page: at coordinates, a click can miss while the page moves.
func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.WaitVisible(chromedp.CSS(selector)),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.querySelector(%q).click()`, selector)),
	)
}

// debounce waits until Swagger UI uses what was filled in, which is 350 ms later. The page's timers run in order.
var debounce = chromedp.Evaluate[chromedp.Void](`new Promise((done) => setTimeout(done, 360))`,
	chromedp.EvalAwaitPromise)

// fill gives an input, text area or list a value, in the way that React notices.
func fill(selector, value string) chromedp.Action[chromedp.Void] {
	script := fmt.Sprintf(`(() => {
		const e = document.querySelector(%q);
		Object.getOwnPropertyDescriptor(Object.getPrototypeOf(e), "value").set.call(e, %q);
		e.dispatchEvent(new Event("input", {bubbles: true}));
		e.dispatchEvent(new Event("change", {bubbles: true}));
	})()`, selector, value)
	return chromedp.Steps(
		chromedp.WaitVisible(chromedp.CSS(selector)),
		chromedp.Evaluate[chromedp.Void](script),
	)
}

// screenshot keeps what the page looked like when a step failed; see
// "go help testflag" for -artifacts.
func (b *browser) screenshot(t *testing.T) {
	ctx, cancel := context.WithTimeout(b.ctx, stepTimeout)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Log(err)
		return
	}
	file := filepath.Join(t.ArtifactDir(), "page.png")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Log(err)
	}
}

func writePicture(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 64))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "me.png")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var operationID = regexp.MustCompile(`(?m)^      operationId: (\w+)$`)

// operations lists the operations of the contract.
func operations(t *testing.T, base string) []string {
	t.Helper()
	res, err := http.Get(base + "/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	contract, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range operationID.FindAllSubmatch(contract, -1) {
		ids = append(ids, string(m[1]))
	}
	slices.Sort(ids)
	return ids
}

// remove deletes a user if the test has not.
func remove(t *testing.T, base, token, id string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodDelete, base+"/users/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusNotFound {
		t.Errorf("deleting the user %s: status %d", id, res.StatusCode)
	}
}
