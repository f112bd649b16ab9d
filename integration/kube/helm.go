package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/strvals"
)

// helmTemplate prints what `helm template --include-crds --namespace NAMESPACE namegate CHART --set VALUE…` would.
func helmTemplate(arguments []string) {
	if len(arguments) < 2 {
		usage()
	}
	namespace, directory := arguments[0], arguments[1]
	chart, err := loader.Load(directory)
	if err != nil {
		fatal("reading the chart", err)
	}
	values := map[string]any{}
	for _, set := range arguments[2:] {
		if err := strvals.ParseInto(set, values); err != nil {
			fatal("reading --set", err)
		}
	}
	options := chartutil.ReleaseOptions{Name: "namegate", Namespace: namespace, IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(chart, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		fatal("filling in the values", err)
	}
	rendered, err := engine.Render(chart, all)
	if err != nil {
		fatal("rendering the chart", err)
	}
	for _, crd := range chart.CRDObjects() {
		fmt.Printf("---\n%s\n", crd.File.Data)
	}
	files := make([]string, 0, len(rendered))
	for file := range rendered {
		files = append(files, file)
	}
	slices.Sort(files)
	for _, file := range files {
		text := rendered[file]
		if path.Base(file) != "NOTES.txt" && strings.TrimSpace(text) != "" {
			fmt.Fprintf(os.Stdout, "---\n# %s\n%s\n", file, text)
		}
	}
}
