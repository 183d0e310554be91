// Command gosec is gosec's analyzer alone, for go vet -vettool: the command
// that gosec itself ships also links the SDKs of several hosted services.
package main

import (
	"github.com/securego/gosec/v2/goanalysis"
	"golang.org/x/tools/go/analysis/unitchecker"
)

func main() {
	unitchecker.Main(goanalysis.Analyzer)
}
