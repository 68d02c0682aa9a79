package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
)

// pauseImage is one that every node has.
const pauseImage = "k0s.io/pause:3.10.2"

// firstPod creates a pod as soon as the API accepts it and waits until it runs.
func firstPod(ctx context.Context, c *cluster.Cluster, name string) error {
	pods := c.Client.CoreV1().Pods(metav1.NamespaceDefault)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers:                    []corev1.Container{{Name: "main", Image: pauseImage, ImagePullPolicy: corev1.PullNever}},
		},
	}
	if err := c.WaitDefaultServiceAccount(ctx); err != nil {
		return err
	}
	err := c.Eventually(ctx, cluster.Patience, "the first pod to be accepted", func(ctx context.Context) error {
		_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return c.WaitPod(ctx, metav1.NamespaceDefault, name, cluster.Running)
}

// deletePod deletes a pod and waits until it is gone.
func deletePod(ctx context.Context, c *cluster.Cluster, name string) error {
	pods := c.Client.CoreV1().Pods(metav1.NamespaceDefault)
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return c.Eventually(ctx, cluster.Patience, "the pod "+name+" to go", func(ctx context.Context) error {
		_, err := pods.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there (%w)", err)
	})
}
