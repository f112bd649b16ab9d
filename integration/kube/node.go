package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// serveNode runs what makes Pods out of objects: the controllers, the scheduler, and on the node kubelet and kube-proxy. Every
// flag is the program's own.
func serveNode(mode string) {
	var command *cobra.Command
	switch mode {
	case "serve-controllers":
		command = controllers.NewControllerManagerCommand()
	case "serve-scheduler":
		command = scheduler.NewSchedulerCommand()
	case "serve-proxy":
		command = proxy.NewProxyCommand()
	default:
		command = kubelet.NewKubeletCommand(context.Background())
	}
	os.Exit(cli.Run(command))
}
