// Command enforcer makes network policies hold on the test node, well or badly on request. It is a test double: it
// does for one node and a handful of pods what the network plugin of a cluster does, in the simplest way that is
// right, and it can be told to be late or to leak, as such plugins are at times. Nobody should run it elsewhere.
//
//	enforcer --kubeconfig FILE [--delay 5s] [--leak N]
//	enforcer --off
//
// As with others, a pod is not known before it runs: what it sends in its first moments passes. What was connected
// before a policy came stays connected. Packets that are not allowed are dropped, and nobody is told.
package main

import (
	"flag"
	"fmt"
	"log"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Changes come in bursts; this is how long one is waited for.
const burst = 20 * time.Millisecond

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the `file` that says where the API server is")
	delay := flag.Duration("delay", 0, "enforce this long after a pod got its address")
	leak := flag.Int("leak", 0, "let each `N`th packet through that is not allowed to a pod or from it; 0: none")
	off := flag.Bool("off", false, "take away what an earlier enforcer left, and enforce nothing")
	flag.Parse()
	// The thread that starts nft must not end before it.
	runtime.LockOSThread()
	log.SetFlags(log.Lmicroseconds)
	if *off {
		apply(nothing)
		fmt.Println("ready")
		select {}
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	enforce(kubernetes.NewForConfigOrDie(config), &late{delay: *delay, seen: map[types.UID]time.Time{}}, *leak)
}

// enforce follows the API server and never returns.
func enforce(client kubernetes.Interface, late *late, leak int) {
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, namespaces := factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	changes := make(chan struct{}, 1)
	changed := func() {
		select {
		case changes <- struct{}{}:
		default:
		}
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { changed() },
			UpdateFunc: func(any, any) { changed() },
			DeleteFunc: func(any) { changed() },
		})
	}
	factory.Start(nil)
	factory.WaitForCacheSync(nil)

	applied := ""
	for {
		var now world
		now.pods, _ = pods.Lister().List(labels.Everything())
		now.namespaces, _ = namespaces.Lister().List(labels.Everything())
		now.policies, _ = policies.Lister().List(labels.Everything())
		wake := late.leaveOut(&now, time.Now())
		if rules := now.rules(leak); rules != applied {
			apply(rules)
			if applied == "" {
				fmt.Println("ready")
			}
			applied = rules
			log.Printf("%d policies, %d pods", len(now.policies), len(now.pods))
		}
		select {
		case <-changes:
			time.Sleep(burst)
		case <-wake:
		}
	}
}

// world is what is enforced, and for whom.
type world struct {
	pods       []*corev1.Pod
	namespaces []*corev1.Namespace
	policies   []*networkingv1.NetworkPolicy
	// Pods for whom nothing is enforced yet; they are in pods, too, as others may reach them.
	spared map[types.UID]bool
}

// late knows since when pods have an address.
type late struct {
	delay time.Duration
	seen  map[types.UID]time.Time
}

// leaveOut spares the pods whose time has not come, and says when that of the first of them comes.
func (l *late) leaveOut(now *world, at time.Time) <-chan time.Time {
	now.spared = map[types.UID]bool{}
	next := time.Duration(0)
	for _, pod := range now.pods {
		if pod.Status.PodIP == "" {
			continue
		}
		if _, known := l.seen[pod.UID]; !known {
			l.seen[pod.UID] = at
		}
		if left := l.seen[pod.UID].Add(l.delay).Sub(at); left > 0 {
			now.spared[pod.UID] = true
			if next == 0 || left < next {
				next = left
			}
		}
	}
	if next == 0 {
		return nil
	}
	return time.After(next)
}

// apply puts all rules into the kernel at once, in place of all earlier ones.
func apply(rules string) {
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(rules)
	// Who is told to stop must not change anything afterwards.
	nft.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if said, err := nft.CombinedOutput(); err != nil {
		log.Fatalf("nft: %v\n%s\n%s", err, said, rules)
	}
}
