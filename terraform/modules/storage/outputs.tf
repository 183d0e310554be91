output "table_name" {
  description = "Name of the DynamoDB table; DYNAMODB_TABLE of the service."
  value       = aws_dynamodb_table.users.name
}

output "table_arn" {
  description = "ARN of the DynamoDB table."
  value       = aws_dynamodb_table.users.arn
}

output "bucket_name" {
  description = "Name of the S3 bucket; S3_BUCKET of the service."
  value       = aws_s3_bucket.avatars.id
}

output "bucket_arn" {
  description = "ARN of the S3 bucket."
  value       = aws_s3_bucket.avatars.arn
}
