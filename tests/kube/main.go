// Command kube holds the programs of a Kubernetes control plane in one binary, because they share nearly all of their code.
// The name it is called by selects the program, so that links to it make up a folder as KUBEBUILDER_ASSETS expects it.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	if os.Getenv("END_WITH_STDIN") != "" {
		go endWithStdin()
	}
	switch name := filepath.Base(os.Args[0]); name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		run(controllers.NewControllerManagerCommand())
	case "kubectl":
		run(kubectl.NewDefaultKubectlCommand())
	default:
		fmt.Fprintf(os.Stderr, "%s is none of etcd, kube-apiserver, kube-controller-manager, kubectl\n", name)
		os.Exit(2)
	}
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

// endWithStdin ends the program when who started it is gone, even if that was killed. A server that outlives its test
// would keep its ports and a core.
func endWithStdin() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(1)
}
