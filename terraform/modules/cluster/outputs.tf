output "arn" {
  description = "ARN of the cluster."
  value       = aws_eks_cluster.control_plane.arn
}
