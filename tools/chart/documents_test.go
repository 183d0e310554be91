package chart

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// TestTags renders tags that look like numbers, as one commit in thirty has them, and checks that every command of the
// documents passes the tag as a string.
func TestTags(t *testing.T) {
	for helm, path := range helms {
		for _, tag := range []string{"1234567", "0123456", "12e4567"} {
			manifests, err := run(path(), "template", release, chartDir, kubeVersion, "--namespace", namespace,
				"--values", valuesFile(t, awsValues), "--set-string", "image.tag="+tag)
			if err != nil {
				t.Fatal(err)
			}
			deployment := get[*appsv1.Deployment](t, decode(t, manifests))
			if got := deployment.Spec.Template.Spec.Containers[0].Image; got != "roster:"+tag {
				t.Errorf("%s: image %s, want roster:%s", helm, got, tag)
			}
		}
	}
	documents, err := exec.Command("git", "-C", root, "ls-files", "*.md").Output()
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, document := range strings.Fields(string(documents)) {
		text, err := os.ReadFile(root + "/" + document) // #nosec G304 -- a file of the repository
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range regexp.MustCompile(`--set\S* \S*image\.tag=`).FindAllString(string(text), -1) {
			commands++
			if !strings.HasPrefix(command, "--set-string ") {
				t.Errorf("%s: %s…, want --set-string", document, command)
			}
		}
	}
	if commands < 3 {
		t.Errorf("found only %d commands with image.tag", commands)
	}
}

// TestIgnored checks that git ignores the files with secrets that the documents' commands write.
func TestIgnored(t *testing.T) {
	for _, path := range []string{
		"tokens", "roster-values.yaml", "terraform/tokens", "terraform/values.yaml", "terraform/plan",
		"terraform/terraform.tfvars",
	} {
		if err := exec.Command("git", "-C", root, "check-ignore", "--quiet", path).Run(); err != nil { // #nosec G204
			t.Errorf("git does not ignore %s: %v", path, err)
		}
	}
}
