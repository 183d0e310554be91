output "role_arn" {
  description = "ARN of the role of the pods."
  value       = aws_iam_role.pods.arn
}
