output "role_arn" {
  description = "ARN of the role that the pods have."
  value       = aws_iam_role.this.arn
}

output "role_name" {
  description = "Name of the role that the pods have."
  value       = aws_iam_role.this.name
}

output "namespace" {
  description = "Kubernetes namespace that the role is for."
  value       = aws_eks_pod_identity_association.this.namespace
}

output "service_account" {
  description = "Kubernetes service account that the role is for."
  value       = aws_eks_pod_identity_association.this.service_account
}
