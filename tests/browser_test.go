package tests

import (
	"os"
	"os/exec"
	"testing"
)

// TestBrowser tries every operation out on the API's page, in Chromium, without
// tokens and with them. What drives the browser is a module of its own.
func TestBrowser(t *testing.T) {
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("the API's page is tried out in Chromium, which is not installed")
	}
	for _, test := range []struct {
		name, token string
		env         []string
	}{
		{"open", "", nil},
		{"tokens", "web-token-0123456789abcdef", []string{"AUTH_TOKENS_FILE=testdata/tokens"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, test.env...)
			cmd := exec.Command("go", "test", "-C", "../tools/browser", "-count=1", "-v", ".")
			cmd.Env = append(os.Environ(), "ROSTER_URL="+p.url, "ROSTER_TOKEN="+test.token)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			} else {
				t.Logf("%s", out)
			}
		})
	}
}
