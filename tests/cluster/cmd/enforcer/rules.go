package main

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const table = "inet ostler-enforcer"

// nothing takes the table away, if it is there.
const nothing = "table " + table + "\ndelete table " + table + "\n"

// rules are for nft: a chain for each pod and direction that some policy is about, and the way to it.
//
// A packet to the node itself is not forwarded, but is as much a pod's. What the node sends to pods, such as kubelet's
// probes, is neither, and passes.
func (w *world) rules(leak int) string {
	var chains, egress, ingress strings.Builder
	pods := slices.SortedFunc(slices.Values(w.pods), func(a, b *corev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	for i, pod := range pods {
		if !hasAddress(pod) || w.spared[pod.UID] {
			continue
		}
		if allowed, isolated := w.egress(pod); isolated {
			fmt.Fprintf(&egress, "%s : jump e%d, ", pod.Status.PodIP, i)
			writeChain(&chains, fmt.Sprintf("e%d", i), pod, allowed, leak)
		}
		if allowed, isolated := w.ingress(pod); isolated {
			fmt.Fprintf(&ingress, "%s : jump i%d, ", pod.Status.PodIP, i)
			writeChain(&chains, fmt.Sprintf("i%d", i), pod, allowed, leak)
		}
	}
	return nothing + "table " + table + " {\n" + chains.String() +
		verdicts("egress", egress.String()) + verdicts("ingress", ingress.String()) + `
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		ip saddr vmap @egress
		ip daddr vmap @ingress
	}
	chain input {
		type filter hook input priority filter; policy accept;
		ct state established,related accept
		ip saddr vmap @egress
	}
}
`
}

func verdicts(name, elements string) string {
	if elements != "" {
		elements = "elements = { " + elements + "}"
	}
	return fmt.Sprintf("\tmap %s {\n\t\ttype ipv4_addr : verdict\n\t\t%s\n\t}\n", name, elements)
}

// writeChain: what is allowed returns to where the other end of the packet is looked at.
func writeChain(to *strings.Builder, name string, pod *corev1.Pod, allowed []string, leak int) {
	fmt.Fprintf(to, "\tchain %s {\n\t\t# %s/%s\n", name, pod.Namespace, pod.Name)
	for _, match := range allowed {
		fmt.Fprintf(to, "\t\t%s return\n", match)
	}
	if leak > 0 {
		fmt.Fprintf(to, "\t\tnumgen inc mod %d == 0 counter return\n", leak)
	}
	fmt.Fprint(to, "\t\tcounter drop\n\t}\n")
}

func hasAddress(pod *corev1.Pod) bool {
	over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	return pod.Status.PodIP != "" && !pod.Spec.HostNetwork && !over
}

// egress gives what a pod may send, and whether there is a policy about that at all.
func (w *world) egress(pod *corev1.Pod) (allowed []string, isolated bool) {
	allowed = []string{"ip daddr " + pod.Status.PodIP}
	for _, policy := range w.about(pod, networkingv1.PolicyTypeEgress) {
		isolated = true
		for _, rule := range policy.Spec.Egress {
			allowed = append(allowed, w.matches("daddr", policy.Namespace, rule.To, rule.Ports, nil)...)
		}
	}
	return allowed, isolated
}

// ingress gives what a pod may be sent, and whether there is a policy about that at all.
func (w *world) ingress(pod *corev1.Pod) (allowed []string, isolated bool) {
	allowed = []string{"ip saddr " + pod.Status.PodIP}
	for _, policy := range w.about(pod, networkingv1.PolicyTypeIngress) {
		isolated = true
		for _, rule := range policy.Spec.Ingress {
			allowed = append(allowed, w.matches("saddr", policy.Namespace, rule.From, rule.Ports, pod)...)
		}
	}
	return allowed, isolated
}

func (w *world) about(pod *corev1.Pod, kind networkingv1.PolicyType) (policies []*networkingv1.NetworkPolicy) {
	for _, policy := range w.policies {
		if policy.Namespace == pod.Namespace && slices.Contains(policy.Spec.PolicyTypes, kind) &&
			selects(&policy.Spec.PodSelector, pod.Labels) {
			policies = append(policies, policy)
		}
	}
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int { return strings.Compare(a.Name, b.Name) })
	return policies
}

// matches are the matching parts of nft rules for one rule of a policy. Ports are those of the receiver: of a pod that
// is given, or else of each peer.
func (w *world) matches(
	side, namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort,
	receiver *corev1.Pod,
) (all []string) {
	if len(peers) == 0 {
		// Nobody is said, which is everybody. Names of ports of nobody in particular are the peers' own.
		for _, port := range portMatches(ports, receiver) {
			all = append(all, join("meta nfproto ipv4", port))
		}
		if receiver == nil {
			for _, pod := range w.pods {
				all = append(all, w.peerMatches(side, pod, ports)...)
			}
		}
		return all
	}
	for _, peer := range peers {
		if block := peer.IPBlock; block != nil {
			for _, port := range portMatches(ports, receiver) {
				all = append(all, join(blockMatch(side, block), port))
			}
			continue
		}
		for _, pod := range w.selected(namespace, &peer) {
			if receiver == nil {
				all = append(all, w.peerMatches(side, pod, ports)...)
				continue
			}
			for _, port := range portMatches(ports, receiver) {
				all = append(all, join("ip "+side+" "+pod.Status.PodIP, port))
			}
		}
	}
	return all
}

// peerMatches are for one pod that is sent to.
func (w *world) peerMatches(side string, pod *corev1.Pod, ports []networkingv1.NetworkPolicyPort) (all []string) {
	if !hasAddress(pod) {
		return nil
	}
	for _, port := range portMatches(ports, pod) {
		all = append(all, join("ip "+side+" "+pod.Status.PodIP, port))
	}
	return all
}

func blockMatch(side string, block *networkingv1.IPBlock) string {
	match := "ip " + side + " " + block.CIDR
	for _, except := range block.Except {
		match += " ip " + side + " != " + except
	}
	return match
}

// selected gives the pods that a peer which is no block is about.
func (w *world) selected(namespace string, peer *networkingv1.NetworkPolicyPeer) (pods []*corev1.Pod) {
	namespaces := map[string]bool{namespace: peer.NamespaceSelector == nil}
	if peer.NamespaceSelector != nil {
		for _, other := range w.namespaces {
			namespaces[other.Name] = selects(peer.NamespaceSelector, other.Labels)
		}
	}
	for _, pod := range w.pods {
		if hasAddress(pod) && namespaces[pod.Namespace] &&
			(peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels)) {
			pods = append(pods, pod)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Status.PodIP, b.Status.PodIP) })
	return pods
}

// selects: the API server lets no selector in that cannot be read.
func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(set))
}

// portMatches has an empty one for every port. The receiver, if known, says what the names of ports mean.
func portMatches(ports []networkingv1.NetworkPolicyPort, receiver *corev1.Pod) (all []string) {
	if len(ports) == 0 {
		return []string{""}
	}
	for _, port := range ports {
		protocol := corev1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		name := strings.ToLower(string(protocol))
		switch {
		case port.Port == nil:
			all = append(all, "meta l4proto "+name)
		case port.Port.Type == intstr.String:
			for _, number := range named(receiver, port.Port.StrVal, protocol) {
				all = append(all, fmt.Sprintf("%s dport %d", name, number))
			}
		case port.EndPort != nil:
			all = append(all, fmt.Sprintf("%s dport %d-%d", name, port.Port.IntVal, *port.EndPort))
		default:
			all = append(all, fmt.Sprintf("%s dport %d", name, port.Port.IntVal))
		}
	}
	return all
}

// named gives the ports of that name of a pod, and of sidecars in it.
func named(pod *corev1.Pod, name string, protocol corev1.Protocol) (numbers []int32) {
	if pod == nil {
		return nil
	}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, port := range container.Ports {
			if port.Name == name && port.Protocol == protocol {
				numbers = append(numbers, port.ContainerPort)
			}
		}
	}
	return numbers
}

func join(parts ...string) string {
	return strings.TrimSpace(strings.Join(parts, " "))
}
