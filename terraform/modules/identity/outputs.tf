output "role_arn" {
  description = "ARN of the role of the pods."
  value       = aws_iam_role.pods.arn
}

output "namespace" {
  description = "Kubernetes namespace whose pods get the role."
  value       = aws_eks_pod_identity_association.pods.namespace
}

output "service_account" {
  description = "Kubernetes service account whose pods get the role."
  value       = aws_eks_pod_identity_association.pods.service_account
}
