package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

// checkMonitoring holds objects of the Prometheus operator on standard input against its own types, unknown fields included, and
// prints how many there were.
func checkMonitoring() {
	kinds := map[string]func() any{
		"PodMonitor":     func() any { return &monitoring.PodMonitor{} },
		"PrometheusRule": func() any { return &monitoring.PrometheusRule{} },
	}
	documents := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	checked := 0
	for {
		document, err := documents.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			fatal("reading", err)
		}
		var object struct {
			Kind string `json:"kind"`
		}
		if err := strict.Unmarshal(document, &object); err != nil {
			fatal("reading", err)
		}
		empty, known := kinds[object.Kind]
		if !known {
			continue
		}
		if err := strict.UnmarshalStrict(bytes.TrimSpace(document), empty()); err != nil {
			fatal("checking "+object.Kind, err)
		}
		checked++
	}
	fmt.Fprintln(os.Stdout, checked)
}
