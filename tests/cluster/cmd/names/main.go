// Command names is the name server of the test node: it knows the services of the cluster, and nothing else.
//
//	names --kubeconfig FILE --listen ADDRESS:53
//
// It says the address of NAME.NAMESPACE.svc.cluster.local over UDP. Any other name does not exist, so a search list goes on.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const suffix = ".svc.cluster.local."

// Services that are made anew have new addresses, so nobody should remember one for long.
const seconds = 1

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the `file` that says where the API server is")
	listen := flag.String("listen", "", "the `address` where questions come")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(config), 0)
	services := factory.Core().V1().Services()
	services.Informer()
	factory.Start(nil)
	factory.WaitForCacheSync(nil)
	socket, err := net.ListenPacket("udp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	for packet := make([]byte, 4096); ; {
		length, from, err := socket.ReadFrom(packet)
		if err != nil {
			log.Fatal(err)
		}
		if answer, err := answer(services.Lister(), packet[:length]); err != nil {
			log.Printf("%v: %v", from, err)
		} else if _, err := socket.WriteTo(answer, from); err != nil {
			log.Printf("%v: %v", from, err)
		}
	}
}

func answer(services listers.ServiceLister, packet []byte) ([]byte, error) {
	var asked dnsmessage.Parser
	header, err := asked.Start(packet)
	if err != nil {
		return nil, err
	}
	question, err := asked.Question()
	if err != nil {
		return nil, err
	}
	said := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired,
		},
		Questions: []dnsmessage.Question{question},
	}
	address := find(services, strings.ToLower(question.Name.String()))
	switch {
	case address == nil:
		said.RCode = dnsmessage.RCodeNameError
	case question.Type == dnsmessage.TypeA:
		// A name without an answer of the other types exists all the same.
		said.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: seconds},
			Body:   &dnsmessage.AResource{A: [4]byte(address)},
		}}
	}
	return said.Pack()
}

// find gives the address of a service, or nil.
func find(services listers.ServiceLister, name string) net.IP {
	name, found := strings.CutSuffix(name, suffix)
	parts := strings.Split(name, ".")
	if !found || len(parts) != 2 {
		return nil
	}
	service, err := services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil
	}
	return net.ParseIP(service.Spec.ClusterIP).To4()
}
