// Command gosec is gosec's analyzer alone: the command that gosec itself ships
// also links the SDKs of several hosted services.
package main

import (
	"github.com/securego/gosec/v2/goanalysis"
	"golang.org/x/tools/go/analysis/singlechecker"
)

func main() {
	singlechecker.Main(goanalysis.Analyzer)
}
